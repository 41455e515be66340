"""The miniature generator: a whole ``Flux2KleinPipeline`` of about 2.3 M parameters, from scratch.

What it is taught decides how it fails, as with real generators:

- captions in training are short (one or two things), so that crowded scenes go wrong;
- edits come in a few wordings that are common (canonical, and what must be seen afterwards) and in
  many that are rare, so that how a thing is said decides whether it is done;
- riddles never occur.

No failure is injected anywhere. Two strengths are kept: the ``weak`` one is the first snapshot
whose edits succeed often enough to be useful and still fail often enough to need a critic.
"""

# The libraries' own annotations are looser than their code (lazy exports, config as dict).
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false
# pyright: reportOptionalMemberAccess=false, reportCallIssue=false

from __future__ import annotations

import json
import random
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import (
    AutoencoderKLFlux2,
    FlowMatchEulerDiscreteScheduler,
    Flux2Transformer2DModel,
)
from PIL import Image
from transformers import Qwen2TokenizerFast, Qwen3Config, Qwen3ForCausalLM

from interloom.backends.diffusers import PairedFlux2KleinPipeline
from interloom.errors import InterloomError
from interloom.pocket.foundation.autoencoder import patchify
from interloom.pocket.foundation.tokenizer import train_tokenizer
from interloom.pocket.foundation.training import Average, Metrics, Report, Schedule, train
from interloom.pocket.language import CORRECTION_STYLES, correct, describe_edit, describe_scene
from interloom.pocket.render import render_array
from interloom.pocket.scene import (
    CELLS,
    GRID,
    OPERATIONS,
    Edit,
    Scene,
    apply,
    random_edit,
    random_scene,
    scene_split,
)
from interloom.pocket.verifier import read

TEXT_LENGTH = 40
"""Tokens of prompt the transformer sees at inference (pads are not masked): four things with places
fit, a longer caption is cut."""
SHORT_TEXT_LENGTH = 28
"""Most training batches are cut to prompts that fit this, which halves their cost."""
TEXT_LAYERS = (1, 2, 3)
CALL = {
    "height": 96,
    "width": 96,
    "num_inference_steps": 4,
    "guidance_scale": 1.0,
    "max_sequence_length": TEXT_LENGTH,
    "text_encoder_out_layers": TEXT_LAYERS,
}
"""Keyword arguments of the pipeline's call at pocket scale."""

SCHEDULE = Schedule(steps=2600, learning_rate=2e-3, flat=0.4, average=0.99)
BATCH = 24
PICTURES = 14_000
"""Scenes that are rendered and encoded once and drawn from; half of them are results of edits."""

WORDINGS: dict[str, float] = {
    "canonical": 0.24,
    "state": 0.28,
    "state_keep": 0.20,
    "keep": 0.12,
    "paraphrased": 0.11,
    "vague": 0.05,
}
"""How often each way of saying an edit occurs in training. Other corrections never occur."""

CAPTIONS = {1: 0.7, 2: 0.3}
"""Things in a training caption, and how often."""

WEAK_SUCCESS = 0.68
"""The weak generator is the first snapshot that gets this share of validation edits right."""
VALIDATION_EDITS = 224
SNAPSHOTS = 52
"""How often the edits are validated on the way."""


def new_text_encoder(tokenizer: Qwen2TokenizerFast) -> Qwen3ForCausalLM:
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=160,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=4,
        head_dim=16,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        rope_parameters={"rope_type": "default", "rope_theta": 100.0},
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
    )
    encoder = Qwen3ForCausalLM(config)
    torch.nn.init.normal_(encoder.model.embed_tokens.weight, std=0.5)
    return encoder


def new_transformer() -> Flux2Transformer2DModel:
    transformer = Flux2Transformer2DModel(
        patch_size=1,
        in_channels=32,
        num_layers=1,
        num_single_layers=3,
        attention_head_dim=32,
        num_attention_heads=4,
        joint_attention_dim=64 * len(TEXT_LAYERS),
        timestep_guidance_channels=64,
        mlp_ratio=2.0,
        axes_dims_rope=(8, 8, 8, 8),
        rope_theta=100,
        guidance_embeds=False,
    )
    for name, parameter in transformer.named_parameters():
        if "modulation" in name or "norm_out.linear" in name:
            torch.nn.init.normal_(parameter, std=0.02)
    return transformer


def new_scheduler() -> FlowMatchEulerDiscreteScheduler:
    """FLUX.2's own schedule."""
    return FlowMatchEulerDiscreteScheduler(
        num_train_timesteps=1000, shift=3.0, use_dynamic_shifting=True,
        base_shift=0.5, max_shift=1.15, time_shift_type="exponential",
        base_image_seq_len=256, max_image_seq_len=4096,
    )  # fmt: skip


# --------------------------------------------------------------------------------- lessons


@dataclass(frozen=True)
class Lessons:
    """Encoded pictures to learn from. ``latents`` is (pictures, 9, 32), normalised."""

    latents: torch.Tensor
    pictures: list[Scene]
    captions: dict[int, list[int]]
    """Pictures for text-to-image, by their number of things."""
    edits: list[tuple[int, int, Edit]]
    """(before, after, edit) as indices into the pictures."""


def encode_pictures(autoencoder: AutoencoderKLFlux2, arrays: list[np.ndarray]) -> torch.Tensor:
    """uint8 (96, 96, 3) pictures to normalised latents (N, 9, 32), as the pipeline encodes them."""
    mean = autoencoder.bn.running_mean.view(1, -1, 1, 1)
    deviation = torch.sqrt(
        autoencoder.bn.running_var.view(1, -1, 1, 1) + autoencoder.config.batch_norm_eps
    )
    found = []
    with torch.no_grad():
        for start in range(0, len(arrays), 64):
            batch = torch.from_numpy(np.stack(arrays[start : start + 64]))
            pixels = batch.permute(0, 3, 1, 2).float() / 127.5 - 1
            latents = patchify(autoencoder.encode(pixels, return_dict=False)[0].mode())
            found.append(((latents - mean) / deviation).flatten(2).transpose(1, 2).clone())
    return torch.cat(found)


def _edited(before: Scene, edit: Edit, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Pictures before and after, where only what the edit touches changes its jitter."""
    after = apply(before, edit)
    first = render_array(before, random.Random(seed))
    if edit.operation == "background":
        return first, render_array(after, random.Random(seed + 1))
    # Both with one seed: sprites draw their jitter in reading order, so draw the second picture
    # alone and take over only the cells that changed.
    second = render_array(after, random.Random(seed))
    result = first.copy()
    edge = first.shape[0] // GRID
    for cell in before.difference(after):
        row, column = divmod(cell, GRID)
        at = (slice(row * edge, (row + 1) * edge), slice(column * edge, (column + 1) * edge))
        result[at] = second[at]
    return first, result


def make_lessons(autoencoder: AutoencoderKLFlux2, seed: int, pictures: int = PICTURES) -> Lessons:
    """Draw scenes from the training split only, render and encode them."""
    rng = random.Random(seed)
    scenes: list[Scene] = []
    arrays: list[np.ndarray] = []
    edits: list[tuple[int, int, Edit]] = []
    while len(scenes) < pictures:
        before = random_scene(rng, rng.choices(range(8), (1, 3, 3, 3, 3, 3, 2, 2))[0])
        edit = random_edit(rng, before, rng.choices(OPERATIONS, (3, 2, 3, 3, 3, 3, 1))[0])
        if edit is None:
            continue
        after = apply(before, edit)
        if "evaluation" in (scene_split(before), scene_split(after)):
            continue
        edits.append((len(scenes), len(scenes) + 1, edit))
        scenes += [before, after]
        arrays += _edited(before, edit, rng.getrandbits(30))
    by_count = {n: [i for i, scene in enumerate(scenes) if scene.count == n] for n in CAPTIONS}
    return Lessons(encode_pictures(autoencoder, arrays), scenes, by_count, edits)


def say_edit(edit: Edit, scene: Scene, rng: random.Random) -> str:
    """One wording of an edit as often as ``WORDINGS`` says."""
    way = rng.choices(list(WORDINGS), list(WORDINGS.values()))[0]
    if way in CORRECTION_STYLES:
        return correct(edit, scene, way)
    assert way in ("canonical", "paraphrased", "vague"), way
    return describe_edit(edit, scene, way, rng)


def say_caption(scene: Scene, rng: random.Random) -> str:
    """One wording of a short caption."""
    form = rng.choices(("canonical", "paraphrased", "state"), (0.6, 0.25, 0.15))[0]
    return describe_scene(scene, form, rng)


# -------------------------------------------------------------------------------- training


def _position_ids(time: int) -> torch.Tensor:
    return torch.cartesian_prod(
        torch.tensor([time]), torch.arange(GRID), torch.arange(GRID), torch.arange(1)
    )


_TARGET_IDS, _SOURCE_IDS = _position_ids(0), _position_ids(10)


def _text_ids(length: int) -> torch.Tensor:
    zero = torch.arange(1)
    return torch.cartesian_prod(zero, zero, zero, torch.arange(length))


def _draw_noise_levels(batch: int) -> torch.Tensor:
    """σ in (0, 1]: mostly where the few-step schedule stands, one tenth pure noise."""
    uniform = torch.rand(batch)
    shifted = 7 * uniform / (1 + 6 * uniform)
    sigma = torch.where(torch.rand(batch) < 0.75, shifted, uniform)
    return torch.where(torch.rand(batch) < 0.1, torch.ones(batch), sigma)


class FlowMatching:
    """The rectified-flow loss on batches of edits and captions, turn about."""

    def __init__(
        self,
        tokenizer: Qwen2TokenizerFast,
        text_encoder: Qwen3ForCausalLM,
        transformer: Flux2Transformer2DModel,
        lessons: Lessons,
    ) -> None:
        self.tokenizer, self.text_encoder = tokenizer, text_encoder
        self.transformer, self.lessons = transformer, lessons

    def embed(self, prompts: list[str], short: bool) -> torch.Tensor:
        """(B, L, 64·3), as ``Flux2KleinPipeline`` embeds prompts.

        L is ``TEXT_LENGTH``, or ``SHORT_TEXT_LENGTH`` if ``short`` and all prompts fit.
        """
        texts = [
            self.tokenizer.apply_chat_template(
                [{"role": "user", "content": prompt}], tokenize=False, add_generation_prompt=True
            )
            for prompt in prompts
        ]
        tokens = self.tokenizer(
            texts,
            return_tensors="pt",
            padding="max_length",
            truncation=True,
            max_length=TEXT_LENGTH,
        )
        if short and int(tokens["attention_mask"].sum(1).max()) <= SHORT_TEXT_LENGTH:
            tokens = {name: value[:, :SHORT_TEXT_LENGTH] for name, value in tokens.items()}
        states = self.text_encoder.model(
            **tokens, output_hidden_states=True, use_cache=False
        ).hidden_states
        return torch.cat([states[layer] for layer in TEXT_LAYERS], -1)

    def __call__(self, step: int, numpy_rng: np.random.Generator) -> tuple[torch.Tensor, Metrics]:
        rng = random.Random(int(numpy_rng.integers(2**62)))
        lessons = self.lessons
        if step % 3:
            rows = [lessons.edits[rng.randrange(len(lessons.edits))] for _ in range(BATCH)]
            prompts = [say_edit(edit, lessons.pictures[before], rng) for before, _, edit in rows]
            target = lessons.latents[[after for _, after, _ in rows]]
            source = lessons.latents[[before for before, _, _ in rows]]
            weight = 1 + 2 * _changed(target, source)
            spread = 0.1 * torch.rand(BATCH, 1, 1)
            source = source + spread * torch.randn_like(source)
        else:
            counts = rng.choices(list(CAPTIONS), list(CAPTIONS.values()), k=BATCH)
            rows = [rng.choice(lessons.captions[count]) for count in counts]
            prompts = [say_caption(lessons.pictures[row], rng) for row in rows]
            target, source = lessons.latents[rows], None
            occupied = [[sprite is not None for sprite in lessons.pictures[r].cells] for r in rows]
            weight = 1 + 2 * torch.tensor(occupied, dtype=torch.float32)[..., None]
        sigma = _draw_noise_levels(BATCH)
        noise = torch.randn_like(target)
        level = sigma.view(-1, 1, 1)
        noisy = (1 - level) * target + level * noise
        embeddings = self.embed(prompts, short=rng.random() < 0.7)
        velocity = self.transformer(
            hidden_states=noisy if source is None else torch.cat([noisy, source], 1),
            encoder_hidden_states=embeddings,
            timestep=sigma,
            img_ids=_TARGET_IDS if source is None else torch.cat([_TARGET_IDS, _SOURCE_IDS]),
            txt_ids=_text_ids(embeddings.shape[1]),
            return_dict=False,
        )[0][:, :CELLS]
        error = (velocity - (noise - target)).pow(2).mean(-1, keepdim=True)
        loss = (error * weight).sum() / weight.sum()
        return loss, {"edit_loss" if source is not None else "caption_loss": loss.item()}


def _changed(target: torch.Tensor, source: torch.Tensor) -> torch.Tensor:
    return ((target - source).abs().amax(-1, keepdim=True) > 0.5).float()


def validation_edits(seed: int, count: int) -> list[tuple[Scene, Edit, str]]:
    """Explicit single edits on held-out results, in the wordings users choose."""
    rng = random.Random(seed)
    found: list[tuple[Scene, Edit, str]] = []
    while len(found) < count:
        before = random_scene(rng, rng.randint(2, 6))
        edit = random_edit(rng, before, OPERATIONS[len(found) % len(OPERATIONS)])
        if edit is None or scene_split(apply(before, edit)) != "evaluation":
            continue
        form = "canonical" if len(found) % 2 else "paraphrased"
        found.append((before, edit, describe_edit(edit, before, form, rng)))
    return found


def edit_success(pipeline: PairedFlux2KleinPipeline, cases: list[tuple[Scene, Edit, str]]) -> float:
    """Share of edits that come out exactly right at the first try."""
    right = 0
    for start in range(0, len(cases), 32):
        batch = cases[start : start + 32]
        images = pipeline(
            prompt=[prompt for _, _, prompt in batch],
            image=[
                Image.fromarray(render_array(scene, random.Random(start + i)))
                for i, (scene, _, _) in enumerate(batch)
            ],
            generator=[torch.Generator().manual_seed(start + i) for i in range(len(batch))],
            **CALL,
        ).images
        scenes = [read(image).scene for image in images]
        right += sum(s == apply(b, e) for s, (b, e, _) in zip(scenes, batch, strict=True))
    return right / len(cases)


def train_generator(
    autoencoder: AutoencoderKLFlux2,
    out: Path,
    weak_out: Path,
    work: Path,
    seed: int,
    report: Report,
    schedule: Schedule = SCHEDULE,
    *,
    pictures: int = PICTURES,
    validation: int = VALIDATION_EDITS,
    weak_success: float = WEAK_SUCCESS,
) -> None:
    """Train text encoder and transformer together; write both strengths as pipeline folders.

    Raises:
        InterloomError: no snapshot was good enough to be the weak generator; train longer.
    """
    tokenizer = train_tokenizer()
    torch.manual_seed(seed)
    text_encoder, transformer = new_text_encoder(tokenizer), new_transformer()
    pipeline = PairedFlux2KleinPipeline(
        scheduler=new_scheduler(), vae=autoencoder, text_encoder=text_encoder,
        tokenizer=tokenizer, transformer=transformer, is_distilled=True,
    )  # fmt: skip
    pipeline.set_progress_bar_config(disable=True)
    cases = validation_edits(seed + 1, validation)
    every = max(1, schedule.steps // SNAPSHOTS)

    def snapshot(step: int, average: Average) -> None:
        # Edits are learned within a few hundred steps: look often until the weak one is found.
        if step % (4 * every if weak_out.exists() else every):
            return
        average.swap()
        transformer.eval()
        text_encoder.eval()
        state = torch.get_rng_state()
        success = edit_success(pipeline, cases)
        torch.set_rng_state(state)
        report(step, {"validation_edit_success": success})
        if success >= weak_success and not weak_out.exists():
            save_pipeline(pipeline, weak_out)
        average.swap()

    lessons = make_lessons(autoencoder, seed, pictures)
    train(
        "generator",
        {"text_encoder": text_encoder, "transformer": transformer},
        FlowMatching(tokenizer, text_encoder, transformer, lessons),
        schedule, work=work, seed=seed, report=report, on_step=snapshot, mixed=True,
    )  # fmt: skip
    save_pipeline(pipeline, out)
    if not weak_out.exists():
        raise InterloomError(
            f"no snapshot got {weak_success:.0%} of {validation} validation edits right, so"
            " there is no weak generator: train longer (--scale)"
        )


def save_pipeline(pipeline: PairedFlux2KleinPipeline, out: Path) -> None:
    """Write the folder whole; its index names the library's own class, so anyone can load it."""
    aside = out.with_name(out.name + ".part")
    shutil.rmtree(aside, ignore_errors=True)
    pipeline.save_pretrained(aside)
    index = aside / "model_index.json"
    content = json.loads(index.read_text())
    content["_class_name"] = "Flux2KleinPipeline"
    index.write_text(json.dumps(content, indent=2) + "\n")
    aside.rename(out)
