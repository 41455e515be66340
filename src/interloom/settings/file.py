"""The whole params file: reading it, changing it, switching profiles."""

from __future__ import annotations

import json
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError

from interloom.cluster.settings import ClusterSettings
from interloom.errors import InterloomError
from interloom.params import Section, explain, read_params
from interloom.settings.data import (
    AdaptiveDataSettings,
    CriticDataSettings,
    PlannerDataSettings,
    PromptsSettings,
    TrajectoriesSettings,
    ValidationSettings,
)
from interloom.settings.evaluation import (
    AdaptiveEvaluateSettings,
    EvaluateSettings,
    GradingSettings,
    ReportSettings,
)
from interloom.settings.models import (
    ModelsSettings,
    RemotesSettings,
    TeacherSettings,
    UnifiedSettings,
)
from interloom.settings.operation import (
    OrchestrationSettings,
    PromotionSettings,
    RegistrationSettings,
    ServingSettings,
    TrackingSettings,
)
from interloom.settings.training import (
    AdaptiveGrpoSettings,
    AdaptiveSftSettings,
    GrpoSettings,
    PlannerSftSettings,
    SftSettings,
)


class Settings(Section):
    """The whole params file."""

    profile: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]*$")]
    seed: Annotated[int, Field(ge=0, lt=2**31)]
    models: ModelsSettings
    remote: RemotesSettings
    teacher: TeacherSettings
    prompts: PromptsSettings
    trajectories: TrajectoriesSettings
    critic_data: CriticDataSettings
    planner_data: PlannerDataSettings
    unified: UnifiedSettings
    adaptive_data: AdaptiveDataSettings
    validation: ValidationSettings
    sft_planner: PlannerSftSettings
    sft_critic: SftSettings
    sft_adaptive: AdaptiveSftSettings
    grpo_critic: GrpoSettings
    grpo_adaptive: AdaptiveGrpoSettings
    evaluate: EvaluateSettings
    evaluate_adaptive: AdaptiveEvaluateSettings
    grading: GradingSettings
    report: ReportSettings
    registration: RegistrationSettings
    promotion: PromotionSettings
    serving: ServingSettings
    orchestration: OrchestrationSettings
    cluster: ClusterSettings
    tracking: TrackingSettings


def load_settings(path: str | Path = "params.yaml") -> Settings:
    """Read and check a params file.

    Raises ``InterloomError`` naming the file, the first wrong key, its value and what is allowed
    (further wrong keys follow after semicolons).
    """
    return settings_from(read_params(path), str(path))


def settings_from(raw: dict[str, Any], source: str) -> Settings:
    """Check plain values; ``source`` is the file named in errors."""
    try:
        # As JSON, because strict Python values would refuse a list where a tuple is wanted.
        return Settings.model_validate_json(json.dumps(raw, default=str))
    except ValidationError as error:
        problems = "; ".join(explain(problem, Settings) for problem in error.errors())
        raise InterloomError(f"{source}: {problems}") from None


def load_profile(root: Path, name: str | None) -> Settings:
    """The settings of a profile: the active params file, or the one in ``profiles/``.

    Raises:
        InterloomError: no profile of this name, or a wrong file.
    """
    active = load_settings(root / "params.yaml")
    if name in (None, active.profile):
        return active
    return load_settings(_profile_file(root, name, active.profile))


def use_profile(root: Path, name: str) -> str:
    """Make ``profiles/NAME.yaml`` the params file of the project in ``root``; says what was done.

    A profile stands in one place: the active one is ``params.yaml``, the others are in
    ``profiles/``. So the present one goes there under its name, with all that was changed in it.
    """
    active, folder = root / "params.yaml", root / "profiles"
    present = load_settings(active)
    if present.profile == name:
        return f"params.yaml already is profile {name}"
    wanted, kept = _profile_file(root, name, present.profile), folder / f"{present.profile}.yaml"
    if kept.exists():
        raise InterloomError(f"{kept} exists, but {present.profile} is in params.yaml: remove one")
    if load_settings(wanted).profile != name:
        raise InterloomError(f"{wanted}: `profile:` must be {name}, as the file is called")
    active.rename(kept)
    wanted.rename(active)
    return f"params.yaml is now profile {name}; {present.profile} is kept in {kept}"


def _profile_file(root: Path, name: str, active: str) -> Path:
    """Where a profile that is not the active one stands."""
    folder = root / "profiles"
    if not (folder / f"{name}.yaml").is_file():
        known = sorted({active, *(path.stem for path in folder.glob("*.yaml"))})
        raise InterloomError(f"no profile {name!r}; profiles: {', '.join(known)}")
    return folder / f"{name}.yaml"


def change_params(path: Path, changes: Sequence[str]) -> None:
    """Apply ``KEY=VALUE`` changes to a params file, keeping its comments.

    Raises ``InterloomError`` and changes nothing if a key is unknown or a value is not allowed.
    """
    from io import StringIO

    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    read_params(path)  # says what is wrong with the file as it is
    yaml = YAML()
    yaml.width = 1000
    yaml.preserve_quotes = True
    yaml.indent(mapping=2, sequence=4, offset=2)  # as the files are, so that other lines stay
    content = yaml.load(path.read_text(encoding="utf-8"))
    for change in changes:
        key, sign, text = change.partition("=")
        if not sign:
            raise InterloomError(f"{change!r}: expected KEY=VALUE with a key of {path.name}")
        *sections, name = key.split(".")
        place = _entered(content, [*sections, name], change, path)
        try:
            place[name] = YAML(typ="safe").load(text)
        except YAMLError as error:
            reason = str(error).splitlines()[0]
            raise InterloomError(f"{change!r}: not a YAML value ({reason}); quote it") from None
    written = StringIO()
    yaml.dump(content, written)
    settings_from(YAML(typ="safe").load(written.getvalue()), path.name)
    part = path.with_suffix(".part")
    part.write_text(written.getvalue(), encoding="utf-8")
    part.replace(path)


def _entered(content: Any, parts: Sequence[str], change: str, path: Path) -> Any:
    """The section of the last of ``parts``, all of which have to be there."""
    place = content
    for depth, part in enumerate(parts):
        if not isinstance(place, dict) or part not in place:
            near = get_close_matches(part, place, n=1) if isinstance(place, dict) else []
            meant = ".".join([*parts[:depth], *near])
            hint = f" (did you mean {meant}?)" if near else ""
            where = f"no key {'.'.join(parts[: depth + 1])} in {path.name}{hint}"
            raise InterloomError(f"{change!r}: {where}; expected KEY=VALUE")
        place = place[part] if depth < len(parts) - 1 else place
    return place
