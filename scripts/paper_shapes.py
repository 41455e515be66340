"""What the papers' sizes cost on one GPU: python scripts/paper_shapes.py [--help]

Models of the papers' shapes with random weights, through this project's own settings and trainers:

- *sft*: steps of Qwen3-VL-8B on critic samples of two 1024² pictures: tokens/s, model FLOPs
  utilisation, peak memory.
- *grpo*: steps of the same with N = 8 rollouts (rewards of no cost: generator and judge are
  measured apart): completion tokens/s, utilisation, peak memory.
- *generator*: FLUX.2-klein-9B, seconds per 1024² edit at 4 steps.

One JSON line each. ``--tiny`` takes miniature shapes, for a machine without a GPU: it shows that
the script works and says nothing about speed. Utilisation counts the arithmetic that a step needs
(forward and backward; a recomputed forward pass is not counted twice) against the card's dense
bfloat16 peak.
"""

from __future__ import annotations

import json
import resource
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import typer
from datasets import Dataset
from diffusers import AutoencoderKLFlux2, FlowMatchEulerDiscreteScheduler, Flux2Transformer2DModel
from PIL import Image
from transformers import (
    AutoTokenizer,
    PrinterCallback,
    Qwen3Config,
    Qwen3ForCausalLM,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    TrainerCallback,
)

from interloom.backends.diffusers import PairedFlux2KleinPipeline
from interloom.backends.transformers import image_tokens, load_processor
from interloom.dialogue import answer_message, critic_messages, format_critique
from interloom.images import to_png
from interloom.records import Critique
from interloom.roles import CritiqueCase
from interloom.runner import StageRun
from interloom.settings.file import Settings, load_settings
from interloom.stages import find_stage
from interloom.train import grpo, sft
from interloom.train.batches import LikeLengthsSFTTrainer
from interloom.train.rollouts import PartwiseGRPOTrainer

ROOT = Path(__file__).resolve().parent.parent
PEAKS = {"H100": 989e12, "H200": 989e12, "A100": 312e12, "B200": 2250e12}
"""Dense bfloat16 operations per second, by a part of the card's name."""
Part = Literal["sft", "grpo", "generator"]


@dataclass(frozen=True)
class Shape:
    """Sizes of all models, and of the work."""

    text: dict[str, Any]
    vision: dict[str, Any]
    transformer: dict[str, Any]
    encoder: dict[str, Any]
    autoencoder: dict[str, Any]
    encoder_layers: tuple[int, ...]
    pixels: int
    """Side of a picture."""
    answer: int
    """Tokens of an answer, trained on or sampled."""
    prompt: int
    """Tokens of the generator's prompt."""


PAPER = Shape(
    text={"vocab_size": 151936, "hidden_size": 4096, "intermediate_size": 12288,
          "num_hidden_layers": 36, "num_attention_heads": 32, "num_key_value_heads": 8,
          "head_dim": 128, "max_position_embeddings": 262144,
          "rope_parameters": {"rope_type": "default", "rope_theta": 5e6,
                              "mrope_section": [24, 20, 20], "mrope_interleaved": True}},
    vision={"depth": 27, "hidden_size": 1152, "intermediate_size": 4304, "num_heads": 16,
            "out_hidden_size": 4096, "num_position_embeddings": 2304,
            "deepstack_visual_indexes": [8, 16, 24]},
    transformer={"in_channels": 128, "num_layers": 8, "num_single_layers": 24,
                 "attention_head_dim": 128, "num_attention_heads": 32,
                 "joint_attention_dim": 12288, "guidance_embeds": False},
    encoder={"vocab_size": 151936, "hidden_size": 4096, "intermediate_size": 12288,
             "num_hidden_layers": 36, "num_attention_heads": 32, "num_key_value_heads": 8,
             "head_dim": 128},
    autoencoder={},
    encoder_layers=(9, 18, 27), pixels=1024, answer=512, prompt=512,
)  # fmt: skip
TINY = Shape(
    text={"vocab_size": 2200, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
          "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 16,
          "max_position_embeddings": 8192,
          "rope_parameters": {"rope_type": "default", "rope_theta": 1e4,
                              "mrope_section": [4, 2, 2], "mrope_interleaved": True}},
    vision={"depth": 2, "hidden_size": 32, "intermediate_size": 64, "num_heads": 2,
            "out_hidden_size": 32, "num_position_embeddings": 64,
            "deepstack_visual_indexes": [0]},
    transformer={"in_channels": 32, "num_layers": 1, "num_single_layers": 1,
                 "attention_head_dim": 32, "num_attention_heads": 2, "joint_attention_dim": 96,
                 "guidance_embeds": False, "axes_dims_rope": (8, 8, 8, 8),
                 "timestep_guidance_channels": 64},
    encoder={"vocab_size": 2200, "hidden_size": 32, "intermediate_size": 64,
             "num_hidden_layers": 4, "num_attention_heads": 2, "num_key_value_heads": 1,
             "head_dim": 16},
    autoencoder={"down_block_types": ("DownEncoderBlock2D",) * 4,
                 "up_block_types": ("UpDecoderBlock2D",) * 4,
                 "block_out_channels": (8, 8, 8, 8), "layers_per_block": 1,
                 "latent_channels": 8, "norm_num_groups": 8},
    encoder_layers=(1, 2, 3), pixels=96, answer=8, prompt=40,
)  # fmt: skip


class Clock(TrainerCallback):
    """Seconds of every optimiser step."""

    def __init__(self, device: torch.device) -> None:
        self.device, self.seconds, self._began = device, [], 0.0

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        synchronise(self.device)
        self._began = time.perf_counter()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        synchronise(self.device)
        self.seconds.append(time.perf_counter() - self._began)


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def random_vlm(shape: Shape, processor: Any, device: torch.device) -> Any:
    """A Qwen3-VL of this shape in bfloat16, with random weights, made where it is used."""
    token = processor.tokenizer.convert_tokens_to_ids
    config = Qwen3VLConfig(
        text_config=shape.text,
        vision_config={"patch_size": 16, "spatial_merge_size": 2, "temporal_patch_size": 2}
        | shape.vision,
        image_token_id=token("<|image_pad|>"),
        video_token_id=token("<|video_pad|>"),
        vision_start_token_id=token("<|vision_start|>"),
        vision_end_token_id=token("<|vision_end|>"),
        tie_word_embeddings=False,
    )
    with torch.device(device):
        torch.set_default_dtype(torch.bfloat16)
        try:
            model = Qwen3VLForConditionalGeneration(config)
        finally:
            torch.set_default_dtype(torch.float32)
    model.generation_config.eos_token_id = processor.tokenizer.eos_token_id
    model.generation_config.pad_token_id = processor.tokenizer.pad_token_id
    return model


def forward_flops(shape: Shape, tokens: float) -> float:
    """Operations of a forward pass over one sequence with two pictures.

    Matrix products (2 per weight and token, embeddings apart) and attention, causal in the language
    model and full within each picture.
    """
    t, v = shape.text, shape.vision
    hidden, heads, wide = t["hidden_size"], t["num_attention_heads"], t["head_dim"]
    layer = hidden * wide * 2 * (heads + t["num_key_value_heads"])
    layer += 3 * hidden * t["intermediate_size"]
    weights = t["num_hidden_layers"] * layer + hidden * t["vocab_size"]
    attention = t["num_hidden_layers"] * 2 * tokens * heads * wide
    patches = (shape.pixels // 16) ** 2
    block = 4 * v["hidden_size"] ** 2 + 2 * v["hidden_size"] * v["intermediate_size"]
    tower = v["depth"] * (2 * block + 4 * patches * v["hidden_size"])
    return tokens * (2 * weights + attention) + 2 * patches * tower


def memory_gib(device: torch.device) -> float:
    """The most that was held: on the card, or by this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def peak_flops(device: torch.device) -> float | None:
    """What the card can do; none if it is not in the list."""
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    return next((value for part, value in PEAKS.items() if part in name), None)


def report(part: Part, device: torch.device, **figures: Any) -> None:
    card = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    shown = {k: round(v, 4) if isinstance(v, float) else v for k, v in figures.items()}
    print(json.dumps({"part": part, "device": card, **shown, "peak_gib": memory_gib(device)}))


def samples(shape: Shape, count: int, settings: Settings, processor: Any) -> Dataset:
    """Critic samples: two pictures, and an answer of about ``shape.answer`` tokens."""
    image = Image.effect_noise((shape.pixels, shape.pixels), 90).convert("RGB")
    picture = to_png(image)
    case = CritiqueCase(before=picture, after=picture, prompt="add a sun", used_prompt="add a sun")
    said = critic_messages(case, settings.models.dialogue)
    piece = "it is there "
    words = piece * (shape.answer // len(processor.tokenizer(piece)["input_ids"]))
    answer = format_critique(Critique(success=True, refine_prompt="add a sun", reasoning=words))

    def row(number: int) -> dict[str, Any]:
        return {
            "prompt": said.messages,
            "completion": [answer_message(answer)],
            "images": [image, image],
            "id": str(number),
        }

    places = Dataset.from_dict({"place": list(range(count))})
    return places.with_transform(
        lambda batch: {
            name: [row(n)[name] for n in batch["place"]]
            for name in ("prompt", "completion", "images", "id")
        }
    )


def timed(trainer: Any, device: torch.device) -> float:
    """Seconds of a step, without the first."""
    clock = Clock(device)
    trainer.add_callback(clock)
    trainer.remove_callback(PrinterCallback)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    trainer.train()
    after = clock.seconds[1:]
    return sum(after) / len(after)


@dataclass(frozen=True)
class Bench:
    """What all measurements share."""

    shape: Shape
    settings: Settings
    device: torch.device
    steps: int
    lora: int
    tiny: bool

    def vlm(self) -> tuple[Any, Any]:
        """Processor and model, as a stage would have them."""
        processor = load_processor(ROOT / "data/vlm", max_image_pixels=self.shape.pixels**2)
        tokenizer: Any = processor.tokenizer  # type: ignore[attr-defined]
        tokenizer.model_max_length = self.shape.text["max_position_embeddings"]
        return processor, random_vlm(self.shape, processor, self.device)

    def changes(self) -> dict[str, Any]:
        """Of the training sections: what one card can hold."""
        return {
            "lora_rank": self.lora,
            "weights_dtype": "bfloat16",
            "gradient_checkpointing": not self.tiny,
            "micro_batch_size": 1,
            "epochs": 1,
        }

    def share(self, flops: float, seconds: float) -> float | None:
        """Utilisation, where the card's peak is known."""
        peak = peak_flops(self.device)
        return flops / seconds / peak if peak else None


def measure_sft(bench: Bench, batch: int = 4) -> None:
    """Optimiser steps of ``batch`` samples, one at a time."""
    options = bench.settings.sft_critic.model_copy(update=bench.changes() | {"batch_size": batch})
    processor, model = bench.vlm()
    data = samples(bench.shape, batch * (bench.steps + 1), bench.settings, processor)
    with tempfile.TemporaryDirectory() as folder:
        trainer = LikeLengthsSFTTrainer(
            lengths=[1] * len(data),
            batch_size=batch,
            model=model,
            args=sft.sft_config(options, bench.settings.models, Path(folder), 0),
            train_dataset=data,
            processing_class=processor,
            peft_config=sft.lora(options),
        )
        tokens = trainer.data_collator([data[0]])["input_ids"].shape[1]
        seconds = timed(trainer, bench.device)
    report(
        "sft", bench.device, parameters=sum(p.numel() for p in model.parameters()),
        lora_rank=bench.lora, tokens_per_sample=tokens, samples_per_step=batch,
        seconds_per_step=seconds, tokens_per_second=batch * tokens / seconds,
        utilisation=bench.share(3 * batch * forward_flops(bench.shape, tokens), seconds),
    )  # fmt: skip


def measure_grpo(bench: Bench, prompts: int = 2, group: int = 8) -> None:
    """Steps of ``prompts`` × ``group`` rollouts: sampling and update; with LoRA, where the base is
    the reference, the KL term too.

    Random weights never end an answer, so that all are as long as allowed; that they are then left
    out of the loss costs the same.
    """
    sizes = {"batch_size": prompts, "group_size": group, "max_steps": bench.steps + 1,
             "max_new_tokens": bench.shape.answer, "use_vllm": False, "parts": 1}  # fmt: skip
    options = bench.settings.grpo_critic.model_copy(update=bench.changes() | sizes)
    processor, model = bench.vlm()
    if not bench.lora:  # TRL reads a reference from the folder that the model came from: none here
        options = options.model_copy(update={"kl_coefficient": 0.0})
    data = samples(bench.shape, prompts * (bench.steps + 1), bench.settings, processor)
    data = data.with_transform(_without_completion(data))
    lengths: list[int] = []

    def reward(completion_ids: list[list[int]], **_: Any) -> list[float]:
        lengths.extend(len(ids) for ids in completion_ids)
        return [float(sum(ids) % 7) for ids in completion_ids]

    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        stage = StageRun(find_stage("grpo-critic"), work, work, work, None)
        trainer = PartwiseGRPOTrainer(
            parts=1,
            on_rollouts=lambda names, texts: None,
            on_advantages=lambda values: None,
            model=model,
            reward_funcs=reward,
            args=grpo.grpo_config(options, bench.settings.models, stage, 0, image_tokens(model)),
            train_dataset=data,
            processing_class=processor,
            peft_config=sft.lora(options),
        )
        asked = processor.apply_chat_template(
            data[0]["prompt"], tokenize=False, add_generation_prompt=True
        )
        read = processor(text=[asked], images=[data[0]["images"]])["input_ids"]
        seconds = timed(trainer, bench.device)
    rollouts, written = prompts * group, sum(lengths) / len(lengths)
    # Sampled once, trained on with a forward and a backward pass, read by the reference if there is
    # one.
    passes = 1 + 3 + bool(bench.lora)
    flops = passes * rollouts * forward_flops(bench.shape, len(read[0]) + written)
    report(
        "grpo", bench.device, parameters=sum(p.numel() for p in model.parameters()),
        lora_rank=bench.lora, rollouts_per_step=rollouts, tokens_per_prompt=len(read[0]),
        tokens_per_completion=written, seconds_per_step=seconds,
        completion_tokens_per_second=rollouts * written / seconds,
        utilisation=bench.share(flops, seconds),
    )  # fmt: skip


def _without_completion(data: Dataset) -> Callable[[dict[str, list[int]]], dict[str, list[Any]]]:
    def transform(batch: dict[str, list[int]]) -> dict[str, list[Any]]:
        rows = [data[place] for place in batch["place"]]
        return {name: [row[name] for row in rows] for name in ("prompt", "images", "id")}

    return transform


def measure_generator(bench: Bench) -> None:
    """Edits of one picture, one at a time and four at a time."""
    shape, torch_dtype = bench.shape, torch.bfloat16
    tokenizer: Any = AutoTokenizer.from_pretrained(ROOT / "data/generator/tokenizer")
    with torch.device(bench.device):
        torch.set_default_dtype(torch_dtype)
        try:
            transformer = Flux2Transformer2DModel(patch_size=1, **shape.transformer)
            encoder = Qwen3ForCausalLM(Qwen3Config(**shape.encoder))
            autoencoder = AutoencoderKLFlux2(**shape.autoencoder)
        finally:
            torch.set_default_dtype(torch.float32)
    scheduler: Any = FlowMatchEulerDiscreteScheduler.from_pretrained(
        ROOT / "data/generator/scheduler"
    )
    pipeline: Any = PairedFlux2KleinPipeline(
        scheduler=scheduler, vae=autoencoder, text_encoder=encoder, tokenizer=tokenizer,
        transformer=transformer, is_distilled=True,
    )  # fmt: skip
    pipeline = pipeline.to(bench.device)
    pipeline.set_progress_bar_config(disable=True)
    picture = Image.effect_noise((shape.pixels, shape.pixels), 90).convert("RGB")
    for batch in (1, 4):
        seconds = []
        for _ in range(bench.steps + 1):
            synchronise(bench.device)
            began = time.perf_counter()
            pipeline(
                prompt=["add a red sun at the top left"] * batch, image=[picture] * batch,
                height=shape.pixels, width=shape.pixels, num_inference_steps=4,
                guidance_scale=1.0, max_sequence_length=shape.prompt,
                text_encoder_out_layers=shape.encoder_layers, output_type="pil",
            )  # fmt: skip
            synchronise(bench.device)
            seconds.append(time.perf_counter() - began)
        report(
            "generator", bench.device, pictures_per_call=batch,
            parameters=sum(p.numel() for p in transformer.parameters()), steps=4,
            pixels=shape.pixels, seconds_per_picture=sum(seconds[1:]) / bench.steps / batch,
        )  # fmt: skip


def main(
    part: Annotated[list[str] | None, typer.Option(help="Only sft, grpo or generator.")] = None,
    steps: Annotated[int, typer.Option(help="Timed steps after one to warm up.", min=1)] = 3,
    lora: Annotated[int, typer.Option(help="LoRA rank; 0 trains all weights.", min=0)] = 0,
    tiny: Annotated[bool, typer.Option(help="Miniature shapes.")] = False,
) -> None:
    """Measure the papers' shapes on this machine's GPU."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.type == "cpu" and not tiny:
        raise typer.BadParameter("there is no GPU here: --tiny runs the script in miniature")
    paper = ROOT / "profiles/paper.yaml"
    settings = load_settings(paper if paper.is_file() else ROOT / "params.yaml")
    shape = TINY if tiny else PAPER
    models = settings.models.model_copy(
        update={"vlm_dtype": "bfloat16", "dialogue": "short" if tiny else "full"}
    )
    bench = Bench(shape, settings.model_copy(update={"models": models}), device, steps, lora, tiny)
    measures = {"sft": measure_sft, "grpo": measure_grpo, "generator": measure_generator}
    if unknown := set(part or ()) - measures.keys():
        raise typer.BadParameter(f"no part {', '.join(sorted(unknown))}")
    for name in part or measures:
        measures[name](bench)
        if device.type == "cuda":
            torch.cuda.empty_cache()


if __name__ == "__main__":
    typer.run(main)
