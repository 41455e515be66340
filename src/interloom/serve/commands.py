"""Bodies of the serving commands of ``cli``."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast, get_args

from interloom.errors import InterloomError
from interloom.serve import guard
from interloom.settings.fields import GeneratorName, System
from interloom.settings.file import Settings, load_settings

DEFAULT_KEYS = ".interloom/keys.json"


def run_server(
    root: Path,
    params: Path,
    model: str | None,
    host: str,
    port: int,
    generators: Sequence[str],
    log_texts: bool,
    keys: str | None = None,
) -> None:
    """`interloom serve`."""
    os.environ.setdefault("GOMP_SPINCOUNT", "0")  # see `interloom run`
    from interloom.serve.server import serve

    settings = _with_keys(load_settings(params), keys)
    source = model or f"models:/{settings.registration.model_name}@champion"
    serve(
        settings,
        root,
        source,
        host=host,
        port=port,
        generators=names_of(generators),
        log_texts=log_texts,
    )


def run_generator(
    root: Path,
    params: Path,
    generator: str,
    model: str | None,
    keys: str | None = None,
    **at: Any,
) -> None:
    """`interloom serve-generator`; ``at`` is host and port."""
    os.environ.setdefault("GOMP_SPINCOUNT", "0")
    from interloom.serve.server import serve_generator

    settings = _with_keys(load_settings(params), keys)
    chosen = settings.models.generator_named(names_of([generator])[0])
    if model is not None:
        chosen = chosen.model_copy(update={"model": model, "backend": "diffusers"})
    if chosen.backend != "diffusers":
        raise InterloomError(
            f"models.{generator} is behind {chosen.backend}: name a pipeline with --model"
        )
    serve_generator(settings, root, chosen, **at)


def _with_keys(settings: Settings, keys: str | None) -> Settings:
    """The settings, with another keys file if one is given."""
    if keys is None:
        return settings
    serving = settings.serving.model_copy(update={"keys": keys})
    return settings.model_copy(update={"serving": serving})


def names_of(generators: Sequence[str]) -> list[GeneratorName]:
    """Names of generators in the params.

    Raises:
        InterloomError: there is none of this name.
    """
    known = get_args(GeneratorName)
    for name in generators:
        if name not in known:
            raise InterloomError(f"--generator {name}: generators are {', '.join(known)}")
    return [cast(GeneratorName, name) for name in generators]


def make_key(root: Path, params: Path, name: str, per_minute: float) -> list[str]:
    """`interloom serve-key`: lines to print, the key among them."""
    chosen = load_settings(params).serving.keys or DEFAULT_KEYS
    key = guard.add_key(root / chosen, name, per_minute)
    lines = [key, f"Shown this once: {chosen} keeps only its hash."]
    if not load_settings(params).serving.keys:
        lines.append(f"Servers read it after: interloom params set serving.keys={chosen}")
    return lines


def export_feedback(
    root: Path, params: Path, folder: Path, track: bool, system: System
) -> list[str]:
    """`interloom feedback export`: what was written, and what to do with it."""
    from interloom.serve import feedback, story_feedback

    if system == "agents":
        done, what = feedback.export(load_settings(params), root, folder), "rows of critic data"
        reader, setting = "critic-data", "critic_data.feedback"
    else:
        done, what = story_feedback.export(load_settings(params), root, folder), "stories"
        reader, setting = "sft-adaptive", "sft_adaptive.feedback"
    lines = [f"{done.path}: {done.rows} {what}"]
    lines += [f"left out, {reason}: {count}" for reason, count in sorted(done.lost.items())]
    if track:
        command = [sys.executable, "-m", "dvc", "add", "--quiet", str(done.path)]
        added = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
        if added.returncode:
            raise InterloomError(f"dvc add {done.path}: {added.stderr.strip().splitlines()[-1]}")
        lines.append(f"tracked by DVC; commit {done.path}.dvc")
    lines.append(f"{reader} takes it in: interloom params set {setting}={done.path}")
    return lines
