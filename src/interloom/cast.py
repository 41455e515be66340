"""Who plays which role: from the params to a generator, a teacher or a judge.

Backends are imported when they are asked for; a diffusers pipeline takes seconds to import. Remote
ones keep their own answers (``remotes``); local ones answer through ``cache`` if one is given.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from interloom.cache import CachedGenerator, CachedJudge, CachedTeacher, CallCache
from interloom.roles import Generator, Judge, Teacher

if TYPE_CHECKING:
    from interloom.backends.remote import Remote, RemoteName, Remotes
    from interloom.backends.remote_roles import ChatSettings, RemoteChat
    from interloom.settings.data import PromptsSettings
    from interloom.settings.models import GeneratorSettings, RemotesSettings, TeacherSettings


def is_remote(backend: str) -> bool:
    """Whether calls to a backend leave this machine's own models; many may be in flight."""
    return backend in ("gemini", "openai", "http")


class Keeper(Protocol):
    """Where a run keeps what remote calls cost and answered; ``StageRun`` is one."""

    @property
    def name(self) -> str: ...

    @property
    def ledger(self) -> Path: ...

    @property
    def cache(self) -> Path: ...


def remotes(settings: RemotesSettings, stage: Keeper) -> Remotes:
    """The remote backends of a stage; their answers outlive it, and changed params too."""
    from interloom.backends.remote import Remotes

    return Remotes(settings, stage.ledger, stage.cache / "answers.sqlite", stage.name)


def generator(
    settings: GeneratorSettings, remotes: Remotes | None = None, cache: CallCache | None = None
) -> Generator:
    """The frozen generator of a ``models.generator…`` section, loaded.

    Raises:
        InterloomError: the model cannot be loaded, or a setting of its remote backend is missing.
    """
    if settings.backend == "diffusers":
        local = _diffusers(settings)
        return CachedGenerator(local, cache, settings.model_dump_json()) if cache else local
    remote = _opened(settings.backend, remotes)
    match settings.backend:
        case "gemini":
            from interloom.backends.gemini import GeminiImages

            return GeminiImages(remote, settings)
        case "openai":
            from interloom.backends.openai import OpenAIImages

            return OpenAIImages(remote, settings)
        case "http":
            from interloom.backends.http import HttpImages

            return HttpImages(remote, settings)


def _diffusers(settings: GeneratorSettings) -> Generator:
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


def teacher(
    settings: TeacherSettings,
    remotes: Remotes | None = None,
    cache: CallCache | None = None,
    *,
    perfect: bool = False,
) -> Teacher:
    """Planner and critic of the ``teacher`` section; ``perfect`` leaves out what it errs in."""
    if settings.backend != "pocket":
        return chat(settings.backend, settings.model, settings, remotes)
    from interloom.backends.pocket import PocketTeacher

    if perfect:
        local = PocketTeacher(corrections={"state_keep": 1.0})
    else:
        local = PocketTeacher(
            wrong_judgments=settings.pocket.wrong_judgments,
            corrections=settings.pocket.corrections,
            wording=settings.pocket.wording,
        )
    return CachedTeacher(local, cache, settings.model) if cache else local


def judge(
    settings: TeacherSettings, remotes: Remotes | None = None, cache: CallCache | None = None
) -> Judge:
    """The judge of the ``teacher`` section."""
    if settings.judge_backend != "pocket":
        return chat(settings.judge_backend, settings.judge_model, settings, remotes)
    from interloom.backends.pocket import PocketJudge

    return CachedJudge(PocketJudge(), cache, settings.judge_model) if cache else PocketJudge()


def chat(
    backend: RemoteName, model: str, settings: ChatSettings, remotes: Remotes | None
) -> RemoteChat:
    """A remote chat model with the temperature and the limit of a section."""
    remote = _opened(backend, remotes)
    if backend == "gemini":
        from interloom.backends.gemini import GeminiChat

        return GeminiChat(remote, model, settings)
    from interloom.backends.openai import OpenAIChat

    return OpenAIChat(remote, model, settings)


def _opened(backend: RemoteName, remotes: Remotes | None) -> Remote:
    assert remotes is not None, f"{backend} is a remote backend: pass cast.remotes(…)"
    return remotes.open(backend)


def held_out(settings: PromptsSettings) -> Callable[[str, bytes | None], bool]:
    """Whether a prompt, said of a picture or of none, belongs to the benchmarks' side.

    Only the pocket world can tell by content alone. Its texts are no others' prompts, and reading
    any picture as a scene takes a fifth of a second: it is asked about its own requests only.
    """
    if settings.edition != "pocket":
        return lambda prompt, before: False
    from interloom.backends.pocket import on_evaluation_side

    return on_evaluation_side
