from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch
from diffusers import Flux2KleinPipeline
from PIL import Image

from interloom.backends.diffusers import DiffusersGenerator
from interloom.errors import InterloomError
from interloom.images import from_bytes, to_png
from interloom.pocket.foundation.generator import CALL
from interloom.pocket.render import render
from interloom.pocket.scene import random_scene
from interloom.records import Failure
from interloom.roles import GenerationJob

PROMPTS = ["add a red sun at the top left", "remove the blue cup at the center", "make it night"]


@pytest.fixture(scope="module")
def generator(tiny_generator: Path) -> DiffusersGenerator:
    torch.set_num_threads(1)
    return DiffusersGenerator(tiny_generator, CALL, batch_size=2)


@pytest.fixture(scope="module")
def sources() -> list[bytes]:
    rng = random.Random(0)
    return [to_png(render(random_scene(rng, 4), i)) for i in range(3)]


def _close(one: bytes | Failure, other: bytes | Failure) -> bool:
    """Equal but for rounding: batching changes the order of floating-point sums."""
    assert isinstance(one, bytes) and isinstance(other, bytes)
    a, b = (
        torch.tensor(list(from_bytes(data).tobytes()), dtype=torch.float) for data in (one, other)
    )
    return bool((a - b).abs().max() <= 2)


def test_different_edits_share_a_batch_and_come_out_as_alone(generator, sources, tiny_generator):
    plain = Flux2KleinPipeline.from_pretrained(tiny_generator)
    plain.set_progress_bar_config(disable=True)
    jobs = [
        GenerationJob(prompt=prompt, seed=i, source=source)
        for i, (prompt, source) in enumerate(zip(PROMPTS, sources, strict=True))
    ]
    together = generator.generate(jobs)
    for job, made in zip(jobs, together, strict=True):
        assert job.source is not None
        alone = plain(
            prompt=job.prompt,
            image=from_bytes(job.source),
            generator=torch.Generator().manual_seed(job.seed),
            **CALL,
        ).images[0]
        assert _close(made, to_png(alone))


def test_jobs_with_and_without_sources_mix_and_keep_their_order(generator, sources):
    jobs = [
        GenerationJob(prompt=PROMPTS[0], seed=1),
        GenerationJob(prompt=PROMPTS[1], seed=2, source=sources[0]),
        GenerationJob(prompt=PROMPTS[2], seed=3),
        GenerationJob(prompt=PROMPTS[0], seed=4, source=sources[1], references=(sources[2],)),
    ]
    mixed = generator.generate(jobs)
    for job, made in zip(jobs, mixed, strict=True):
        assert _close(made, generator.generate([job])[0])


def test_sources_of_different_sizes_do_not_disturb_each_other(generator, sources):
    large = to_png(from_bytes(sources[1]).resize((160, 128)))
    narrow = to_png(from_bytes(sources[1]).resize((8, 8)))
    jobs = [
        GenerationJob(prompt=PROMPTS[i], seed=i, source=source)
        for i, source in enumerate((sources[0], large, narrow))
    ]
    first, second, third = generator.generate(jobs)
    assert _close(first, generator.generate(jobs[:1])[0])
    assert _close(second, generator.generate(jobs[1:2])[0])
    assert isinstance(third, Failure) and "too small" in third.reason


def test_a_seed_gives_the_same_picture_again(generator):
    job = GenerationJob(prompt=PROMPTS[0], seed=7)
    other = GenerationJob(prompt=PROMPTS[0], seed=8)
    assert generator.generate([job]) == generator.generate([job])
    assert generator.generate([job]) != generator.generate([other])


def test_a_missing_pipeline_is_one_clear_error(tmp_path):
    with pytest.raises(InterloomError, match="dvc pull"):
        DiffusersGenerator(tmp_path / "nowhere", CALL)


def test_a_broken_source_names_itself(generator):
    with pytest.raises(InterloomError, match="source image"):
        generator.generate([GenerationJob(prompt=PROMPTS[0], seed=0, source=b"no picture")])


def test_a_pipeline_that_only_edits_paints_first_steps_on_white(
    sources, monkeypatch: pytest.MonkeyPatch
):
    """Qwen-Image-Edit-2511 with its own call settings; only its loading is replaced, as the
    processor of the saved form needs torchvision."""
    import tiny_qwen_edit
    from diffusers import DiffusionPipeline
    from diffusers.pipelines.qwenimage import pipeline_qwenimage_edit_plus as module

    for size in ("VAE_IMAGE_SIZE", "CONDITION_IMAGE_SIZE"):
        monkeypatch.setattr(module, size, 64 * 64)
    tiny = tiny_qwen_edit.build()
    monkeypatch.setattr(DiffusionPipeline, "from_pretrained", lambda *_, **__: tiny)
    call = {
        "height": 64, "width": 64, "num_inference_steps": 2, "guidance_scale": 1.0,
        "true_cfg_scale": 5.0, "negative_prompt": " ",
    }  # fmt: skip
    editor = DiffusersGenerator("Qwen/Qwen-Image-Edit-2511", call, batch_size=4)
    white = to_png(Image.new("RGB", (64, 64), "white"))
    jobs = [
        GenerationJob(prompt=PROMPTS[0], seed=1),
        GenerationJob(prompt=PROMPTS[1], seed=1, source=sources[0]),
        GenerationJob(prompt=PROMPTS[0], seed=1, source=white),
        GenerationJob(prompt=PROMPTS[1], seed=2),
        GenerationJob(prompt=PROMPTS[1], seed=1, source=sources[0], references=(sources[1],)),
    ]
    made = editor.generate(jobs)
    assert all(isinstance(one, bytes) and from_bytes(one).size == (64, 64) for one in made)
    assert made[0] == made[2] != made[1]
    assert editor.generate(jobs[3:4]) == made[3:4], "calls do not depend on their neighbours"
    assert made[4] != made[1], "all references are seen"
