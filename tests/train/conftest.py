"""A project folder with small real datasets and the tiny model, and stages that run in it."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from interloom import images
from interloom.construct import critic_data, planner_data, store
from interloom.pocket.render import render
from interloom.pocket.scene import Scene, Sprite, apply, random_edit, random_scene
from interloom.records import Plan, Request, Step
from interloom.runner import StageRun
from interloom.settings.file import Settings, load_settings, settings_from
from interloom.stages import find_stage

PARAMS = Path(__file__).parents[2] / "params.yaml"


def critic_row(rng: random.Random, number: int) -> dict[str, Any]:
    """A judged edit of a random scene; every second one went wrong (nothing was changed)."""
    from interloom.pocket.language import describe_edit

    scene = random_scene(rng, 3)
    edit = random_edit(rng, scene, "remove")
    assert edit is not None
    prompt, good = describe_edit(edit, scene), number % 2 == 0
    return {
        "id": f"r{number // 2}/1/{number % 2}",
        "step_id": f"r{number // 2}/1",
        "attempt": number % 2,
        "before": images.to_png(render(scene)),
        "after": images.to_png(render(apply(scene, edit) if good else scene)),
        "prompt": prompt,
        "used_prompt": prompt,
        "refine_prompt": prompt,
        "reasoning": "it is gone" if good else "it is still there",
        "category": "edit",
        "generator": "tiny",
        "success": good,
        "semantic": 10.0 if good else 0.0,
        "quality": 10.0,
        "split": "sft",
    }


def planner_row(number: int) -> dict[str, Any]:
    """A plan of two steps; every second request continues after one picture."""
    continued = number % 2 == 1
    picture = images.to_png(render(Scene.of({0: Sprite("red", "sun")})))
    request = Request(
        id=f"p{number}/after-1" if continued else f"p{number}",
        text="draw a red sun and a blue cup",
        images=(picture,) if continued else (),
        captions=("a sun",) if continued else (),
        kind="continuation" if continued else "create",
    )
    steps = tuple(
        Step(step_number=n, step_name=f"n{n}", instruction=f"draw {n}", prompt=f"a red sun {n}")
        for n in ((2,) if continued else (1, 2))
    )
    return planner_data.planner_row("request", request, Plan(reasoning="two things", steps=steps))


@pytest.fixture
def project(tmp_path: Path, tiny_vlm: Path) -> Path:
    """A project folder with critic data, planner data, a verdict and the models that stages
    read."""
    rng = random.Random(0)
    rows = [critic_row(rng, number) for number in range(32)]
    for split in ("sft", "rl"):
        path = tmp_path / "outputs/critic-data" / f"{split}.parquet"
        store.write_table(path, rows, critic_data.critic_schema(), {})
    path = tmp_path / "outputs/planner-data/sft.parquet"
    store.write_table(path, map(planner_row, range(24)), planner_data.planner_schema(), {})
    for model in ("data/vlm", "outputs/models/critic-sft"):
        shutil.copytree(tiny_vlm, tmp_path / model)
    return tmp_path


@pytest.fixture
def open_stage(project: Path) -> Callable[[str], StageRun]:
    """Opens a stage in the project folder, without tracking."""

    def opened(name: str) -> StageRun:
        work, aside = project / "work" / name, project / "aside" / name
        work.mkdir(parents=True, exist_ok=True)
        aside.mkdir(parents=True, exist_ok=True)
        return StageRun(find_stage(name), project, work, aside, None)

    return opened


SMALL = {
    "micro_batch_size": 4, "max_new_tokens": 12, "held_out": 4, "evaluations": 2, "warmup_steps": 0,
    "threads": 1,
}  # fmt: skip


def small_settings(section: str, **changes: Any) -> Settings:
    """The shipped params with a section made small."""
    raw = load_settings(PARAMS).model_dump(mode="json")
    raw[section] |= SMALL | changes
    return settings_from(raw, "test")


@pytest.fixture
def settings() -> Callable[..., Settings]:
    return small_settings
