"""The checked-in configurations of accelerate are read by accelerate, and fit the paper profile."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from accelerate.commands.config.config_args import ClusterConfig, load_config_from_file
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils.launch import prepare_deepspeed_cmd_env, prepare_multi_gpu_env
from transformers.models.emu3 import modeling_emu3
from transformers.models.qwen3_vl import modeling_qwen3_vl

from interloom.settings.file import load_settings
from interloom.train import preflight, sft

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "profiles/accelerate").glob("*.yaml"))
PAPER = ROOT / "profiles/paper.yaml"


def read(path: Path) -> ClusterConfig:
    config = load_config_from_file(str(path))
    assert isinstance(config, ClusterConfig)
    return config


def launched(path: Path) -> Any:
    """The arguments of ``accelerate launch`` as it completes them from the file."""
    line = ["--config_file", str(path), "-m", "interloom", "run", "sft-critic"]
    arguments, _, _ = _validate_launch_command(launch_command_parser().parse_args(line))
    return arguments


def test_both_ways_of_sharding_are_there():
    assert [path.stem for path in FILES] == ["deepspeed-zero3", "fsdp"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_file_is_read_and_its_processes_divide_the_paper_profile(
    path: Path, monkeypatch: pytest.MonkeyPatch
):
    config, settings = read(path), load_settings(PAPER)
    assert config.mixed_precision == {"bfloat16": "bf16"}[settings.models.vlm_dtype]
    monkeypatch.setenv("WORLD_SIZE", str(config.num_processes))
    for options in (settings.sft_planner, settings.sft_critic):
        sft.accumulation("batch_size", options.batch_size, options.micro_batch_size)
    grpo = settings.grpo_critic
    preflight.check_group(
        grpo.group_size, grpo.batch_size, grpo.micro_batch_size, config.num_processes
    )


def test_fsdp_wraps_the_layers_of_both_systems_models_and_saves_whole_ones():
    options = read(ROOT / "profiles/accelerate/fsdp.yaml").fsdp_config
    assert options is not None
    assert "fsdp_transformer_layer_cls_to_wrap" not in options
    for module in (modeling_qwen3_vl, modeling_emu3):
        (model,) = (item for name, item in vars(module).items() if name.endswith("PreTrainedModel")
                    and item.__module__ == module.__name__)  # fmt: skip
        layers = model._no_split_modules
        assert layers and all(name in vars(module) for name in layers)
    assert "FULL_STATE_DICT" in options["fsdp_state_dict_type"]
    assert options["fsdp_version"] == 2


def test_accelerate_launch_takes_the_fsdp_file():
    arguments = launched(ROOT / "profiles/accelerate/fsdp.yaml")
    environment = prepare_multi_gpu_env(arguments)
    assert arguments.module and arguments.training_script == "interloom"
    assert environment["ACCELERATE_USE_FSDP"] == "true"
    assert environment["FSDP_VERSION"] == "2"
    assert environment["ACCELERATE_MIXED_PRECISION"] == "bf16"


def test_accelerate_launch_takes_the_deepspeed_file():
    arguments = launched(ROOT / "profiles/accelerate/deepspeed-zero3.yaml")
    arguments.deepspeed_fields_from_accelerate_config = ""  # the command itself sets it
    _, environment = prepare_deepspeed_cmd_env(arguments)
    assert environment["ACCELERATE_DEEPSPEED_ZERO_STAGE"] == "3"
    assert environment["ACCELERATE_DEEPSPEED_ZERO3_SAVE_16BIT_MODEL"] == "true"
