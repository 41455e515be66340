from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from interloom.errors import InterloomError
from interloom.pocket.foundation import autoencoder as ae
from interloom.pocket.foundation import eye, vlm, vlm_model
from interloom.pocket.foundation import generator as gen
from interloom.pocket.foundation.shipped import load_generator
from interloom.pocket.foundation.skills import SKILLS, draw
from interloom.pocket.foundation.tokenizer import train_tokenizer
from interloom.pocket.foundation.training import Average, Schedule, train
from interloom.pocket.language import describe_scene
from interloom.pocket.render import render_array
from interloom.pocket.scene import random_scene, scene_split

SHORT = Schedule(steps=6, learning_rate=1e-3, warmup=2)


class _Stop(Exception):
    pass


def _linear(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Linear(4, 2)


@pytest.mark.parametrize("matrix_rate", [None, 0.01])
@pytest.mark.parametrize("killed_at", [5, 9, 13])
def test_a_killed_training_ends_with_the_weights_of_an_uninterrupted_one(
    tmp_path, killed_at, matrix_rate
):
    schedule = Schedule(16, 0.01, matrix_rate, warmup=3)

    def run(work, stop: int | None) -> nn.Module:
        model = _linear(3)

        def step(number: int, rng: np.random.Generator):
            if number == stop:
                raise _Stop
            inputs = torch.from_numpy(rng.normal(size=(8, 4))).float() + torch.randn(8, 4)
            return model(inputs).pow(2).mean(), {}

        train("tiny", {"model": model}, step, schedule, work=work, seed=1, report=lambda *_: None,
              checkpoint_every=4)  # fmt: skip
        return model

    whole = run(tmp_path / "whole", None)
    with pytest.raises(_Stop):
        run(tmp_path / "killed", killed_at)
    resumed = run(tmp_path / "killed", None)
    for a, b in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize(("seed", "steps", "said"), [(2, 6, "seed 1, not 2"), (1, 9, "steps 6")])
def test_the_checkpoint_of_another_run_is_refused(tmp_path, seed, steps, said):
    def run(seed: int, schedule: Schedule) -> None:
        model = _linear(0)
        train("tiny", {"model": model}, lambda *_: (model(torch.ones(4)).sum(), {}), schedule,
              work=tmp_path, seed=seed, report=lambda *_: None)  # fmt: skip

    run(1, SHORT)
    with pytest.raises(InterloomError, match=f"tiny.pt is of another run.*{said}"):
        run(seed, replace(SHORT, steps=steps))


def test_the_average_is_swapped_in_and_out():
    model = _linear(0)
    before = model.weight.detach().clone()
    average = Average(list(model.parameters()), 0.5)
    with torch.no_grad():
        model.weight.add_(1)
    average.swap()
    assert torch.equal(model.weight, before)
    average.swap()
    assert torch.equal(model.weight, before + 1)


def test_lessons_are_drawn_from_the_training_split_only():
    lessons = gen.make_lessons(ae.new_autoencoder(), seed=0, pictures=80)
    assert lessons.latents.shape == (len(lessons.pictures), 9, 32)
    assert {scene_split(scene) for scene in lessons.pictures} == {"train"}
    assert all(lessons.pictures[i].count == n for n, rows in lessons.captions.items() for i in rows)


def test_an_edited_picture_keeps_the_pixels_that_the_edit_does_not_touch():
    rng = random.Random(0)
    for _ in range(30):
        scene = random_scene(rng, 4)
        edit = gen.random_edit(rng, scene, "recolour")
        assert edit is not None and edit.at is not None
        before, after = gen._edited(scene, edit, seed=5)
        changed = (before != after).any(-1)
        row, column = divmod(edit.at, 3)
        inside = np.zeros_like(changed)
        inside[row * 32 : row * 32 + 32, column * 32 : column * 32 + 32] = True
        assert changed.any() and not (changed & ~inside).any()


def test_captions_of_four_things_fit_into_the_context():
    tokenizer = train_tokenizer()
    rng = random.Random(0)
    for _ in range(50):
        text = describe_scene(random_scene(rng, 4))
        chat = tokenizer.apply_chat_template([{"role": "user", "content": text}], tokenize=False)
        assert len(tokenizer(chat)["input_ids"]) <= gen.TEXT_LENGTH


def test_every_skill_makes_lessons_that_fit_its_pictures():
    rng = random.Random(0)
    for skill in SKILLS:
        for _ in range(20):
            lesson = skill(rng)
            assert lesson.question.count("<image>") == len(lesson.pictures)
            assert lesson.answer


def test_no_skill_is_a_planner_or_critic_task():
    rng = random.Random(0)
    words = ("execution_plan", "previous_step_success", "refine_prompt", "keep everything else")
    for _ in range(1500):
        lesson = draw(rng)
        assert not any(word in f"{lesson.question} {lesson.answer}" for word in words)


def test_patches_are_those_of_the_processor():
    processor = vlm_model.new_processor(vlm_model.train_vlm_tokenizer(200))
    rng = random.Random(0)
    arrays = np.stack([render_array(random_scene(rng, 5), rng) for _ in range(3)])
    pixels = torch.from_numpy(arrays).permute(0, 3, 1, 2).float() / 127.5 - 1
    theirs = processor.image_processor(
        images=[Image.fromarray(array) for array in arrays], return_tensors="pt"
    )["pixel_values"]
    assert torch.equal(eye.to_patches(pixels), torch.as_tensor(theirs))


@pytest.mark.slow
def test_miniatures_train_from_scratch_in_small(tmp_path):
    torch.set_num_threads(1)
    reported: list[int] = []
    autoencoder = ae.train_autoencoder(
        tmp_path, 1, lambda step, _: reported.append(step), replace(SHORT, steps=12)
    )
    assert reported[-1] == 12 + 4 + 2
    out, weak = tmp_path / "generator", tmp_path / "generator-weak"
    gen.train_generator(
        autoencoder, out, weak, tmp_path, 1, lambda *_: None, SHORT,
        pictures=64, validation=7, weak_success=0.0,
    )  # fmt: skip
    for folder in (out, weak):
        assert '"Flux2KleinPipeline"' in (folder / "model_index.json").read_text()
        assert not list(folder.rglob("*.bin"))
    with pytest.raises(InterloomError, match="no weak generator"):
        gen.train_generator(
            autoencoder, tmp_path / "g2", tmp_path / "w2", tmp_path / "fresh", 1, lambda *_: None,
            SHORT, pictures=64, validation=7, weak_success=1.1,
        )  # fmt: skip
    vlm.train_vlm(
        autoencoder,
        load_generator(weak),
        tmp_path / "vlm",
        tmp_path,
        1,
        lambda *_: None,
        0.001,
        tokenizer_lessons=200,
    )
    assert (tmp_path / "vlm" / "model.safetensors").is_file()
