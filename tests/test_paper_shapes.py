"""The script that measures the papers' shapes: it works in miniature, and the shapes are theirs."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from diffusers import Flux2Transformer2DModel
from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration

SCRIPT = Path(__file__).parent.parent / "scripts/paper_shapes.py"


@pytest.fixture(scope="module")
def shapes() -> ModuleType:
    spec = importlib.util.spec_from_file_location("paper_shapes", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["paper_shapes"] = module  # dataclasses look there
    spec.loader.exec_module(module)
    return module


def billions(model: torch.nn.Module) -> float:
    return sum(parameter.numel() for parameter in model.parameters()) / 1e9


def test_the_shapes_have_the_papers_sizes(shapes: ModuleType):
    paper = shapes.PAPER
    with torch.device("meta"):
        config = Qwen3VLConfig(
            text_config=paper.text, vision_config=paper.vision, tie_word_embeddings=False
        )
        assert billions(Qwen3VLForConditionalGeneration(config)) == pytest.approx(8.77, abs=0.02)
        transformer = Flux2Transformer2DModel(patch_size=1, **paper.transformer)
    assert billions(transformer) == pytest.approx(9.08, abs=0.1)
    # Two operations a weight and token: 4,000 tokens through the language model, two pictures.
    assert 2 * 7.5e9 * 4000 < shapes.forward_flops(paper, 4000) < 1.4 * 2 * 8.2e9 * 4000


def test_all_parts_run_in_miniature():
    command = [sys.executable, str(SCRIPT), "--tiny", "--steps", "1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"part"')]
    assert [line["part"] for line in lines] == ["sft", "grpo", "generator", "generator"]
    sft, grpo, one, four = lines
    assert sft["tokens_per_second"] > 0 and grpo["completion_tokens_per_second"] > 0
    assert grpo["rollouts_per_step"] == 16
    assert (one["pictures_per_call"], four["pictures_per_call"]) == (1, 4)
    assert all(line["device"] == "CPU" and line["peak_gib"] > 0 for line in lines)


def test_without_a_gpu_the_papers_shapes_are_refused():
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    done = subprocess.run(
        [sys.executable, str(SCRIPT)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2 and "there is no GPU here" in done.stderr
