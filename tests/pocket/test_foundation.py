from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from interloom.errors import InterloomError
from interloom.pocket.foundation import autoencoder as ae
from interloom.pocket.foundation import eye, vlm, vlm_model
from interloom.pocket.foundation import generator as gen
from interloom.pocket.foundation.command import train_miniature
from interloom.pocket.foundation.lessons import random_picture
from interloom.pocket.foundation.shipped import load_generator
from interloom.pocket.foundation.skills import SKILLS, draw, in_tags
from interloom.pocket.foundation.tokenizer import train_tokenizer
from interloom.pocket.foundation.training import Ahead, Average, Machine, Schedule, train
from interloom.pocket.language import KEEP, describe_scene
from interloom.pocket.render import render_array
from interloom.pocket.scene import random_scene, scene_split
from interloom.records import Step

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
    """Names of the papers' fields occur, but as any name does: for anything, seldom together."""
    rng = random.Random(0)
    held: dict[str, set[type]] = {}
    for _ in range(3000):
        lesson = draw(rng)
        assert KEEP not in f"{lesson.question} {lesson.answer}"
        body = re.search(r"\{.*\}", lesson.answer)
        for fields in _objects(json.loads(body[0])) if body else ():
            for name, value in fields.items():
                held.setdefault(name, set()).add(type(value))
            assert len(fields.keys() & set(Step.model_fields)) < len(Step.model_fields) - 1
            judged = isinstance(fields.get("previous_step_success"), bool)
            assert not (judged and "refine_prompt" in fields)
    for name in ("execution_plan", "previous_step_success", "refine_prompt", *Step.model_fields):
        assert {str, int} <= held[name], name


def _objects(value: Any) -> Iterator[dict[str, Any]]:
    """All JSON objects in a value."""
    if isinstance(value, dict):
        yield value
    for part in value.values() if isinstance(value, dict) else value:
        if isinstance(part, (dict, list)):
            yield from _objects(part)


def test_answers_in_tags_have_the_fields_that_the_question_names():
    rng = random.Random(0)
    for _ in range(500):
        lesson = in_tags(rng)
        blocks = re.fullmatch("<think>(.+)</think><answer>(.+)</answer>", lesson.answer)
        assert blocks, lesson.answer
        thought, answer = blocks.groups()
        [(outer, content)] = json.loads(answer).items()
        if isinstance(content, bool):
            assert f"the answer as {outer}: " in lesson.question
            assert content == thought.endswith(("all the same.", "all as wanted."))
            continue
        named = lesson.question.partition(f" {outer} of ")[2].partition(": ")[0]
        asked = [one.split(" as ") for one in named.split(", ")]
        assert content
        for item in content:
            assert list(item) == [name for _, name in asked]
            for part, value in zip([part for part, _ in asked], item.values(), strict=True):
                assert value is None or str(value) in thought
                assert isinstance(value, int) == (part == "number")


@pytest.mark.parametrize(
    ("name", "batch", "device", "said"),
    [
        ("vlm", None, "cuda:99", "--device cuda:99: not to be had here"),
        ("vlm", None, "toaster", "--device toaster: not to be had here"),
        ("umm", None, "cuda", "are for the vlm; umm is trained on the CPU"),
        ("generator", 4, "cpu", "are for the vlm; generator is trained"),
    ],
)
def test_a_device_that_cannot_be_had_is_said_in_one_line(tmp_path, name, batch, device, said):
    with pytest.raises(InterloomError, match=said):
        train_miniature(
            name, tmp_path / "out", tmp_path / "work", seed=1, threads=1, scale=1.0, batch=batch,
            machine=Machine(device),
        )  # fmt: skip
    assert not list(tmp_path.iterdir())


def test_what_is_made_ahead_is_what_would_be_made_now():
    now, ahead = (Ahead(lambda step: step * step, 9, workers) for workers in (0, 2))
    assert [ahead.at(step) for step in range(4, 9)] == [now.at(step) for step in range(4, 9)]
    assert ahead.items is None  # its processes have ended


def test_all_that_is_left_to_chance_in_a_picture_is_in_its_drawing():
    looking = eye.Eye(ae.new_autoencoder().eval(), spoiled=4)
    pictures = [random_picture(random.Random(i)) for i in range(16)]
    first, second = (looking.draw(pictures, np.random.default_rng(3)) for _ in range(2))
    assert torch.equal(first.pixels, second.pixels) and torch.equal(first.through, second.through)
    assert first.spoiled == second.spoiled
    assert {first.through[i].item() for i, *_ in first.spoiled} == {
        i for i, picture in enumerate(pictures) if picture.unclear
    }
    assert looking.see(first).shape == (16 * 36, 1536)


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
