"""A project folder in which the data stages run, with the renderer as both generators."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from interloom.settings.file import Settings, load_settings

HERE = Path(__file__).parents[1]
DATA_STAGES = ("prompts", "trajectories", "critic-data", "planner-data", "validate")


@dataclass(frozen=True)
class Project:
    """A project folder whose data stages can be run."""

    root: Path
    settings: Settings

    def run(self, *stages: str) -> None:
        from interloom.runner import run_stage
        from interloom.stages import find_stage

        for name in stages:
            run_stage(find_stage(name), self.settings, self.root, track=False)

    def __getitem__(self, path: str) -> Path:
        return self.root / path


def small_settings() -> Settings:
    settings = load_settings(HERE / "params.yaml")
    return settings.model_copy(
        update={
            "prompts": settings.prompts.model_copy(update={"count": 60}),
            "trajectories": settings.trajectories.model_copy(
                update={"batch_size": 16, "shard_rows": 25, "max_attempts": 4, "weak_share": 0.5}
            ),
            "planner_data": settings.planner_data.model_copy(update={"samples_per_trajectory": 3}),
        }
    )


def new_project(root: Path) -> Project:
    """An empty project with folders where the generators' weights would be."""
    for name in ("generator", "generator-weak"):
        (root / "data" / name).mkdir(parents=True)
    return Project(root, small_settings())


def play_generators(patch: pytest.MonkeyPatch) -> None:
    """Put renderers where the params name diffusers pipelines; all else is as in the lifecycle."""
    from pocket_renderer import RenderGenerator

    from interloom import cast
    from interloom.settings.models import GeneratorSettings

    def generator(settings: GeneratorSettings, *kept: object) -> RenderGenerator:
        weak = settings.model.endswith("weak")
        return RenderGenerator(0.55 if weak else 0.15, Path(settings.model).name)

    patch.setattr(cast, "generator", generator)
