"""The list of stages: what each reads, writes and calls. ``dvc.yaml`` is written from it.

A stage is a pure function of files. Names of dependencies are names of outputs of earlier stages
or of shipped data; the body of a stage asks for them by name (``stage.dep("prompts")``) and never
knows a path. After a change here, or of what a body imports, run ``interloom stages --write``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath
from typing import Any

from interloom.errors import InterloomError
from interloom.settings.fields import System
from interloom.settings.file import Settings

NO_PATHS: Mapping[str, str] = {}
ITEM = "${item.value}"
"""In a path: the value of a matrix's cell, as DVC writes it."""


@dataclass(frozen=True)
class StageSpec:
    """One stage. All paths are relative to the project folder and have forward slashes."""

    name: str
    summary: str
    module: str
    """Module with ``def run(settings, stage) -> None``."""
    sections: tuple[str, ...]
    """Sections of the params file that the body may read; ``seed`` it may always read."""
    deps: Mapping[str, str] = field(default_factory=dict)
    outs: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[str, str] = field(default_factory=dict)
    """JSON files of numbers, kept in git."""
    plots: Mapping[str, str] = field(default_factory=dict)
    """CSV files with a header, or drawings; how `dvc plots` draws them is said by their names."""
    system: System = "agents"
    """Which system's lifecycle it belongs to."""
    together: bool = False
    """Whether several processes (torchrun) can run it together."""
    matrix: str = ""
    """Key of a list in the params file (``evaluate.benchmarks``): the stage runs once for each of
    its values, as ``NAME@VALUE``, and ``ITEM`` in its paths stands for the value."""
    value: str = ""
    """The value that this cell of a matrix is for; empty for the matrix as a whole."""

    @property
    def family(self) -> str:
        """The name without the cell's value."""
        return self.name.partition("@")[0]

    def cell(self, value: str) -> StageSpec:
        """The cell of this matrix for one value."""
        outs = {name: path.replace(ITEM, value) for name, path in self.outs.items()}
        return replace(self, name=f"{self.name}@{value}", outs=outs, value=value)

    @property
    def products(self) -> dict[str, str]:
        """Everything that the stage writes: outputs, metrics and plots by name."""
        return {**self.outs, **self.metrics, **self.plots}


GENERATORS = {"generator": "data/generator", "generator-weak": "data/generator-weak"}
VLM = {"vlm": "data/vlm"}
PROMPTS = {"prompts": "outputs/prompts.parquet"}
TRAJECTORIES = {"trajectories": "outputs/trajectories"}
CRITIC_DATA = {"critic-data": "outputs/critic-data"}
PLANNER_DATA = {"planner-data": "outputs/planner-data"}
# The gate: training depends on the verdict only, as the Data Docs pages carry times.
VERDICT = {"validation": "outputs/validation/result.json"}
PLANNER_SFT = {"planner-sft": "outputs/models/planner-sft"}
CRITIC_SFT = {"critic-sft": "outputs/models/critic-sft"}
CRITIC_RL = {"critic-rl": "outputs/models/critic-rl"}
CURVES = {
    f"curve-{name}": f"plots/{name}.csv" for name in ("sft-planner", "sft-critic", "grpo-critic")
}
UMM = {"umm": "data/umm"}
ADAPTIVE_DATA = {"adaptive-data": "outputs/adaptive-data"}
ADAPTIVE_SFT = {"adaptive-sft": "outputs/models/adaptive-sft"}
ADAPTIVE_VERDICT = {"adaptive-verdict": "outputs/adaptive-validation/result.json"}
ADAPTIVE_RL = {"adaptive-rl": "outputs/models/adaptive-rl"}
ADAPTIVE_CURVES = {
    f"curve-{name}": f"plots/{name}.csv" for name in ("sft-adaptive", "grpo-adaptive")
}
ADAPTIVE_ANSWERS = {"answers": "outputs/adaptive-answers"}
ADAPTIVE_EVALUATION = {"evaluation": "outputs/adaptive-evaluation"}
ANSWERS = {"answers": "outputs/answers"}
EVALUATION = {"evaluation": "outputs/evaluation"}
REPORT = {"report": "reports"}
DRAWN: Mapping[str, Mapping[str, str]] = {
    "yield": {"template": "yields", "x": "rows", "y": "step"},
    "curve": {"template": "curves", "x": "step", "y": "value"},
    "scores": {"template": "scores", "x": "system", "y": "score"},
}
"""How `dvc plots` draws the CSV files, which have one row a value: templates of ``.dvc/plots``."""

STAGES: tuple[StageSpec, ...] = (
    StageSpec(
        name="prompts",
        summary="write requests from categories, vocabulary and templates",
        module="interloom.construct.prompts",
        sections=("prompts", "teacher"),
        outs=PROMPTS,
        metrics={"metrics": "metrics/prompts.json"},
        plots={"yield": "plots/prompts.csv", "flow": "plots/prompts.svg"},
    ),
    StageSpec(
        name="trajectories",
        summary="let the teacher plan, two generators draw, the teacher critique",
        module="interloom.construct.trajectories",
        sections=("models", "teacher", "trajectories"),
        deps=PROMPTS | GENERATORS,
        outs=TRAJECTORIES,
        metrics={"metrics": "metrics/trajectories.json"},
        plots={"yield": "plots/trajectories.csv", "flow": "plots/trajectories.svg"},
    ),
    StageSpec(
        name="critic-data",
        summary="score, filter, split by variance and balance the critic's samples",
        module="interloom.construct.critic_data",
        sections=("critic_data", "models", "prompts", "teacher", "trajectories"),
        deps=TRAJECTORIES,
        outs=CRITIC_DATA,
        metrics={"metrics": "metrics/critic-data.json"},
        plots={"yield": "plots/critic-data.csv", "flow": "plots/critic-data.svg"},
    ),
    StageSpec(
        name="planner-data",
        summary="truncate interleaved sequences into the planner's samples",
        module="interloom.construct.planner_data",
        sections=("models", "planner_data"),
        deps=TRAJECTORIES,
        outs=PLANNER_DATA,
        metrics={"metrics": "metrics/planner-data.json"},
        plots={"yield": "plots/planner-data.csv", "flow": "plots/planner-data.svg"},
    ),
    StageSpec(
        name="validate",
        summary="stop the lifecycle unless every dataset meets its expectations",
        module="interloom.construct.expectations",
        sections=("critic_data", "models", "prompts", "trajectories", "validation"),
        deps=PROMPTS | TRAJECTORIES | CRITIC_DATA | PLANNER_DATA,
        outs={"validation": "outputs/validation"},
        metrics={"metrics": "metrics/validate.json"},
    ),
    StageSpec(
        name="sft-planner",
        summary="fine-tune the planner on its samples",
        module="interloom.train.sft_planner",
        sections=("models", "sft_planner"),
        deps=PLANNER_DATA | CRITIC_DATA | VERDICT | VLM,
        outs=PLANNER_SFT,
        metrics={"metrics": "metrics/sft-planner.json"},
        plots={"curve": "plots/sft-planner.csv"},
        together=True,
    ),
    StageSpec(
        name="sft-critic",
        summary="fine-tune the critic on its samples",
        module="interloom.train.sft_critic",
        sections=("models", "sft_critic"),
        deps=CRITIC_DATA | VERDICT | VLM,
        outs=CRITIC_SFT,
        metrics={"metrics": "metrics/sft-critic.json"},
        plots={"curve": "plots/sft-critic.csv"},
        together=True,
    ),
    StageSpec(
        name="grpo-critic",
        summary="improve the critic by single-step RL with the dual reward",
        module="interloom.train.grpo",
        sections=("grpo_critic", "models", "teacher"),
        deps=CRITIC_DATA | VERDICT | CRITIC_SFT | GENERATORS,
        outs=CRITIC_RL,
        metrics={"metrics": "metrics/grpo-critic.json"},
        plots={"curve": "plots/grpo-critic.csv"},
        together=True,
    ),
    StageSpec(
        name="generate",
        summary="let every system answer a benchmark",
        module="interloom.benchmarks.generate",
        sections=("evaluate", "models", "teacher"),
        deps=PLANNER_SFT | CRITIC_SFT | CRITIC_RL | GENERATORS | VLM,
        outs={"answers": f"outputs/answers/{ITEM}"},
        matrix="evaluate.benchmarks",
    ),
    StageSpec(
        name="evaluate",
        summary="grade what the systems made, by each benchmark's judge and formula",
        module="interloom.benchmarks.evaluate",
        sections=("evaluate", "grading", "teacher"),
        deps=ANSWERS,
        outs=EVALUATION,
        metrics={"metrics": "metrics/evaluate.json"},
        plots={"scores": "plots/evaluate.csv"},
    ),
    StageSpec(
        name="report",
        summary="write the page with tables, curves and galleries",
        module="interloom.benchmarks.report",
        sections=("evaluate", "report"),
        deps=EVALUATION | ANSWERS | TRAJECTORIES | VERDICT | CURVES,
        outs=REPORT,
    ),
    StageSpec(
        name="register",
        summary="register planner, critic and pipeline as model versions",
        module="interloom.registry",
        sections=("evaluate", "models", "registration"),
        deps=PLANNER_SFT | CRITIC_RL | GENERATORS | PLANNER_DATA | CRITIC_DATA | EVALUATION,
        outs={"registration": "outputs/registration.json"},
    ),
    StageSpec(
        name="adaptive-data",
        summary="escalate requests to stories: first try, reflections, plans",
        module="interloom.adaptive.data",
        sections=("adaptive_data", "models", "teacher", "unified"),
        deps=UMM | GENERATORS,
        outs=ADAPTIVE_DATA,
        metrics={"metrics": "metrics/adaptive-data.json"},
        plots={"yield": "plots/adaptive-data.csv", "flow": "plots/adaptive-data.svg"},
        system="adaptive",
    ),
    StageSpec(
        name="validate-adaptive",
        summary="stop the adaptive lifecycle unless its stories meet their expectations",
        module="interloom.adaptive.expectations",
        sections=("adaptive_data", "models", "unified"),
        deps=ADAPTIVE_DATA,
        outs={"adaptive-validation": "outputs/adaptive-validation"},
        metrics={"metrics": "metrics/validate-adaptive.json"},
        system="adaptive",
    ),
    StageSpec(
        name="sft-adaptive",
        summary="fine-tune the unified model on stories, with selective loss masking",
        module="interloom.adaptive.sft",
        sections=("adaptive_data", "models", "sft_adaptive", "teacher", "unified"),
        deps=ADAPTIVE_DATA | ADAPTIVE_VERDICT | UMM,
        outs=ADAPTIVE_SFT,
        metrics={"metrics": "metrics/sft-adaptive.json"},
        plots={"curve": "plots/sft-adaptive.csv"},
        together=True,
        system="adaptive",
    ),
    StageSpec(
        name="grpo-adaptive",
        summary="improve the unified model's choice of mode by RL on whole trajectories",
        module="interloom.adaptive.grpo",
        sections=("adaptive_data", "grpo_adaptive", "models", "teacher", "unified"),
        deps=ADAPTIVE_DATA | ADAPTIVE_VERDICT | ADAPTIVE_SFT,
        outs=ADAPTIVE_RL,
        metrics={"metrics": "metrics/grpo-adaptive.json"},
        plots={"curve": "plots/grpo-adaptive.csv"},
        together=True,
        system="adaptive",
    ),
    StageSpec(
        name="generate-adaptive",
        summary="let every adaptive system answer a benchmark",
        module="interloom.adaptive.systems",
        sections=("evaluate_adaptive", "unified"),
        deps=UMM | ADAPTIVE_SFT | ADAPTIVE_RL,
        outs={"answers": f"outputs/adaptive-answers/{ITEM}"},
        matrix="evaluate_adaptive.benchmarks",
        system="adaptive",
    ),
    StageSpec(
        name="evaluate-adaptive",
        summary="grade what the adaptive systems made",
        module="interloom.adaptive.evaluate",
        sections=("evaluate_adaptive", "grading", "teacher"),
        deps=ADAPTIVE_ANSWERS,
        outs=ADAPTIVE_EVALUATION,
        metrics={"metrics": "metrics/evaluate-adaptive.json"},
        plots={"scores": "plots/evaluate-adaptive.csv"},
        system="adaptive",
    ),
    StageSpec(
        name="report-adaptive",
        summary="write the adaptive systems' page with tables, curves and galleries",
        module="interloom.adaptive.report",
        sections=("report",),
        deps=ADAPTIVE_EVALUATION | ADAPTIVE_ANSWERS | ADAPTIVE_VERDICT | ADAPTIVE_CURVES,
        outs={"report": "reports-adaptive"},
        system="adaptive",
    ),
    StageSpec(
        name="register-adaptive",
        summary="register the unified model as a model version",
        module="interloom.adaptive.register",
        sections=("evaluate_adaptive", "registration", "unified"),
        deps=ADAPTIVE_RL | ADAPTIVE_DATA | ADAPTIVE_EVALUATION,
        outs={"registration": "outputs/adaptive-registration.json"},
        system="adaptive",
    ),
)


def find_stage(name: str) -> StageSpec:
    """The stage called ``name``, or a matrix's cell ``NAME@VALUE``.

    Raises:
        InterloomError: names the stages there are.
    """
    family, _, value = name.partition("@")
    for spec in STAGES:
        if spec.name == family and (spec.matrix or not value):
            return spec.cell(value) if value else spec
    known = ", ".join(spec.name for spec in STAGES)
    raise InterloomError(f"no stage {name!r}; stages: {known}")


def cells(spec: StageSpec, settings: Settings) -> tuple[StageSpec, ...]:
    """What is run for a stage: its matrix's cells under these settings, else itself.

    Raises:
        InterloomError: a cell that the params file does not name.
    """
    if not spec.matrix:
        return (spec,)
    values: Any = settings
    for key in spec.matrix.split("."):
        values = vars(values)[key]
    if not spec.value:
        return tuple(spec.cell(value) for value in values)
    if spec.value not in values:
        raise InterloomError(f"{spec.name}: {spec.matrix} has {', '.join(values)}")
    return (spec,)


def all_cells(names: Sequence[str], settings: Settings) -> list[str]:
    """The names of what is run for these stages."""
    return [cell.name for name in names for cell in cells(find_stage(name), settings)]


def upstream(spec: StageSpec) -> list[StageSpec]:
    """The stages whose outputs ``spec`` reads, directly, in the order of the list."""
    read = [PurePosixPath(path) for path in spec.deps.values()]
    return [other for other in STAGES if any(_touch(path, _all(other)) for path in read)]


def _touch(path: PurePosixPath, outs: Iterator[str]) -> bool:
    """Whether a path is one of these, or inside one, or around a matrix's."""
    return any(
        path.is_relative_to(out) or (ITEM in out and PurePosixPath(out).is_relative_to(path))
        for out in outs
    )


def maker(path: str) -> StageSpec | None:
    """The stage that writes ``path`` or a folder around it; none for shipped data."""
    return next((spec for spec in STAGES if _touch(PurePosixPath(path), _all(spec))), None)


def downstream(name: str) -> list[StageSpec]:
    """``name`` and every stage that needs it, directly or not, in the order of the list."""
    reached = {find_stage(name).name}
    for spec in STAGES:
        if any(other.name in reached for other in upstream(spec)):
            reached.add(spec.name)
    return [spec for spec in STAGES if spec.name in reached]


def wanted_stages(
    from_stage: str | None, only: str | None, system: System | None = None
) -> list[str]:
    """Names of the stages to run: those of a system, one, or one and what needs it.

    Without a system, a stage that is named says which one, and else it is the agents'.
    """
    if from_stage and only:
        raise InterloomError("give --from or --only, not both")
    named = from_stage or only
    system = system or (find_stage(named).system if named else "agents")
    chosen: Sequence[StageSpec] = downstream(from_stage) if from_stage else STAGES
    if only:
        chosen = [find_stage(only)]
    names = [spec.name for spec in chosen if spec.system == system]
    if not names:
        raise InterloomError(f"stage {named!r} is not of the system {system!r}")
    return names


def _all(spec: StageSpec) -> Iterator[str]:
    yield from spec.products.values()


def to_dvc(code: Mapping[str, tuple[str, ...]]) -> dict[str, Any]:
    """The content of ``dvc.yaml``; ``code`` gives each stage's source files (``code.py``)."""
    return {"stages": {name: _dvc_stage(find_stage(name), code[name]) for name in code}}


def _dvc_stage(spec: StageSpec, code: tuple[str, ...]) -> dict[str, Any]:
    name = f"{spec.name}@{ITEM}" if spec.matrix else spec.name
    matrix = {"matrix": {"value": f"${{{spec.matrix}}}"}} if spec.matrix else {}
    entry: dict[str, Any] = {
        **matrix,
        "cmd": f"interloom run {name}",
        "desc": spec.summary,
        "deps": [*sorted(spec.deps.values()), *code],
        "params": ["seed", *sorted(spec.sections)],
        "outs": sorted(spec.outs.values()),
    }
    if spec.metrics:
        entry["metrics"] = [{path: {"cache": False}} for path in sorted(spec.metrics.values())]
    if spec.plots:
        plots = sorted((path, name) for name, path in spec.plots.items())
        entry["plots"] = [{path: dict(DRAWN[n])} if n in DRAWN else path for path, n in plots]
    return entry
