"""Who plays which role: from the params to a generator, a teacher or a judge.

Backends are imported when they are asked for; a diffusers pipeline takes seconds to import.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from interloom.errors import InterloomError
from interloom.roles import Critic, Generator, Judge, Planner

if TYPE_CHECKING:
    from interloom.settings import GeneratorSettings, TeacherSettings


class Teacher(Planner, Critic, Protocol):
    """Plays Planner and Critic for the data."""


def _absent(setting: str, backend: str) -> InterloomError:
    return InterloomError(
        f"{setting} = {backend!r}: this version has no such backend yet; profiles/ shows what runs"
    )


def generator(settings: GeneratorSettings) -> Generator:
    """The frozen generator of a ``models.generator…`` section, loaded.

    Raises:
        InterloomError: the model cannot be loaded, or the backend is not there.
    """
    if settings.backend != "diffusers":
        raise _absent("models.generator.backend", settings.backend)
    import torch

    from interloom.backends.diffusers import DiffusersGenerator

    call = {
        "height": settings.image_size,
        "width": settings.image_size,
        "num_inference_steps": settings.steps,
        "guidance_scale": settings.guidance,
        **settings.call,
    }
    return DiffusersGenerator(
        settings.model,
        call,
        batch_size=settings.batch_size,
        device="cuda" if torch.cuda.is_available() else "cpu",
        dtype={"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[
            settings.dtype
        ],
    )


def teacher(settings: TeacherSettings, *, perfect: bool = False) -> Teacher:
    """Planner and critic of the ``teacher`` section; ``perfect`` leaves out what it errs in."""
    if settings.backend != "pocket":
        raise _absent("teacher.backend", settings.backend)
    from interloom.backends.pocket import PocketTeacher

    if perfect:
        return PocketTeacher(corrections={"state_keep": 1.0})
    return PocketTeacher(
        wrong_judgments=settings.pocket.wrong_judgments,
        corrections=settings.pocket.corrections,
        paraphrased_prompts=settings.pocket.paraphrased_prompts,
    )


def judge(settings: TeacherSettings) -> Judge:
    """The judge of the ``teacher`` section."""
    if settings.judge_backend != "pocket":
        raise _absent("teacher.judge_backend", settings.judge_backend)
    from interloom.backends.pocket import PocketJudge

    return PocketJudge()


def held_out() -> Callable[[str, bytes | None], bool]:
    """Whether a prompt, said of a picture or of none, belongs to the benchmarks' side.

    Only the pocket world can tell by content alone; its texts are no others' prompts, so asking it
    about them does no harm.
    """
    from interloom.backends.pocket import on_evaluation_side

    return on_evaluation_side
