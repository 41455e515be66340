"""What the shipped miniatures can do: python scripts/miniatures.py [DATA] [LESSONS].

Prints for each skill of the vision-language model the shares of answer tokens and of whole answers
that are right (teacher-forced, fresh lessons); how many scenes are still read right after one to
four passes through the generator's autoencoder; how well made the right pictures of both
generators are; and what the unified model sees, draws, edits and describes (held out, greedy).
"""

# pyright: reportArgumentType=false
# (diffusers' annotations name FloatTensor, which torch's functions do not return)

from __future__ import annotations

import random
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from transformers import Qwen3VLForConditionalGeneration

from interloom import images
from interloom.backends.transformers import ImageOnlyQwen3VLProcessor
from interloom.backends.unified import UnifiedModel
from interloom.pocket import verifier
from interloom.pocket.foundation import generator as miniature
from interloom.pocket.foundation import skills
from interloom.pocket.foundation.eye import Eye
from interloom.pocket.foundation.shipped import load_autoencoder, load_generator
from interloom.pocket.foundation.umm import umm_figures
from interloom.pocket.foundation.vlm import skill_accuracy
from interloom.pocket.foundation.vq import vq_figures
from interloom.pocket.render import render_array
from interloom.pocket.scene import apply, random_scene
from interloom.roles import GenerationJob

SCENES = 200
EDITS = 210


def vlm(data: Path, lessons: int) -> None:
    """Accuracy of each skill."""
    model = Qwen3VLForConditionalGeneration.from_pretrained(data / "vlm").eval()
    processor = ImageOnlyQwen3VLProcessor.from_pretrained(data / "vlm")
    eye = Eye(load_autoencoder(data / "generator"))
    for skill in skills.SKILLS:
        told = skill_accuracy(model, processor, eye, seed=1, count=lessons, skill=skill)
        name = skill.__name__.strip("_").replace("_", " ")
        tokens, answers = told["token_accuracy"], told["answer_accuracy"]
        print(f"{name:20} tokens {tokens:.3f}  answers {answers:.2f}  (n = {lessons})", flush=True)


@torch.no_grad()
def wear(data: Path) -> None:
    """Share of scenes read right after each pass through the autoencoder."""
    autoencoder, rng = load_autoencoder(data / "generator"), random.Random(0)
    scenes = [random_scene(rng, rng.randint(1, 7)) for _ in range(SCENES)]
    arrays = np.stack([render_array(scene, random.Random(i)) for i, scene in enumerate(scenes)])
    for number in range(1, 5):
        pixels = torch.from_numpy(arrays).permute(0, 3, 1, 2).float() / 127.5 - 1
        latents = autoencoder.encode(pixels, return_dict=False)[0].mode()
        made = autoencoder.decode(latents, return_dict=False)[0].clamp(-1, 1)
        arrays = ((made + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()
        read = [verifier.read(Image.fromarray(array)).scene for array in arrays]
        right = np.mean([a == b for a, b in zip(read, scenes, strict=True)])
        print(f"autoencoder, pass {number}: {right:.2f} of {SCENES} scenes read right", flush=True)


def workmanship(data: Path) -> None:
    """Quality (0-10) of the edited pictures that show what was asked."""
    cases = miniature.validation_edits(5, EDITS)
    jobs = [
        GenerationJob(prompt=text, seed=i, source=images.to_png(
            Image.fromarray(render_array(before, random.Random(i)))
        ))
        for i, (before, _, text) in enumerate(cases)
    ]  # fmt: skip
    wanted = [apply(before, edit) for before, edit, _ in cases]
    for name in ("generator", "generator-weak"):
        made = load_generator(data / name).generate(jobs)
        assert all(isinstance(picture, bytes) for picture in made)
        readings = [verifier.read(images.from_bytes(p)) for p in made if isinstance(p, bytes)]
        pairs = zip(readings, wanted, strict=True)
        quality = [reading.quality for reading, scene in pairs if reading.scene == scene]
        shown = ", ".join(f"{value:.1f}" for value in np.percentile(quality, [5, 25, 50, 75, 95]))
        print(f"{name}: {len(quality)} of {len(jobs)} edits right, their quality at "
              f"5/25/50/75/95 %: {shown}", flush=True)  # fmt: skip


def umm(data: Path, count: int) -> None:
    """Its picture tokenizer, and shares of pictures that are right in every cell, by its codes."""
    unified = UnifiedModel.from_pretrained(data / "umm")
    told = vq_figures(unified.model.model.vqmodel, load_autoencoder(data / "generator"), 1, count)
    told |= umm_figures(unified, seed=1, count=count)
    for name, value in told.items():
        print(f"umm {name:16} {value:.3f}  (n = {count})", flush=True)


def main(data: str = "data", lessons: str = "128") -> None:
    torch.set_num_threads(1)
    vlm(Path(data), int(lessons))
    wear(Path(data))
    workmanship(Path(data))
    umm(Path(data), int(lessons))


if __name__ == "__main__":
    main(*sys.argv[1:])
