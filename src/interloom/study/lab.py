"""A study's folders: stages and evaluations as tasks, each found by all that it depends on.

The folder of a task is named by a hash of its params, its code and the tasks before it. So
whatever two variants have in common is one task, and a task whose inputs have changed is another::

    stages/sft-critic/1f0c…/     a small project: params, links to inputs, what the stage wrote
    cells/ueval/full-rl/77ab…/   one system's answers to a benchmark, and their grades
    critics/c05e…/               what a seed's critics do with failed steps
    params/full-seed-1.yaml      params of a variant and a seed
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path

import torch

from interloom import cast
from interloom.backends.transformers import ChatModel
from interloom.benchmarks import answers, graders
from interloom.benchmarks.editions import open_edition
from interloom.benchmarks.graded import Graded
from interloom.benchmarks.parts import AGENTS, MODELS, parts_of, writes_text
from interloom.cache import CallCache
from interloom.code import code_of
from interloom.construct import store
from interloom.digests import digest
from interloom.runner import StageRun, run_stage
from interloom.settings.evaluation import SystemName
from interloom.settings.file import Settings, change_params, load_settings
from interloom.stages import STAGES, StageSpec, find_stage, maker
from interloom.study import repairs
from interloom.study.tasks import Task, run_all

CALLS = "calls.sqlite"


@dataclass(frozen=True)
class Params:
    """The params of one variant and seed, as a file and read."""

    path: Path
    settings: Settings


class Lab:
    """Makes the tasks of a study in ``out`` for the project in ``root``.

    ``tasks`` are all that were asked for, every one after those that it needs.
    """

    def __init__(self, root: Path, out: Path) -> None:
        self.root, self.out = root.resolve(), out.resolve()
        self.tasks: dict[Path, Task] = {}

    def params(self, name: str, changes: Sequence[str]) -> Params:
        """The project's params with changes, kept under a name."""
        path = self.out / "params" / f"{name}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(self.root / "params.yaml", path)
        change_params(path, changes)
        return Params(path, load_settings(path))

    def stage(self, params: Params, name: str) -> Task:
        """The task that runs a stage, after those of all stages that it needs."""
        spec = find_stage(name)
        before = {
            path: self.stage(params, made_by.name)
            for path in spec.deps.values()
            if (made_by := maker(path))
        }
        shipped = [path for path in spec.deps.values() if path not in before]
        sections = params.settings.model_dump(mode="json", include={"seed", *spec.sections})
        key = _key(
            name,
            sections,
            [self._digest(path) for path in shipped],
            [task.folder.name for task in before.values()],
            self._code(spec.module),
        )
        links = {path: task.folder / path for path, task in before.items()}
        links |= {path: self.root / path for path in ("data", "src") if (self.root / path).exists()}
        return self._add(
            Task(
                f"seed {params.settings.seed}: {name}",
                self.out / "stages" / name / key,
                partial(_run_stage, stage=name, params=params.path, links=links),
                tuple(task.folder for task in before.values()),
            )
        )

    def output(self, params: Params, name: str) -> Path:
        """Where a stage's output (``critic-rl``) will be; its stage is made a task."""
        spec = stage_of(name)
        return self.stage(params, spec.name).folder / spec.outs[name]

    def cell(
        self,
        params: Params,
        benchmark: str,
        system: SystemName,
        label: str,
        *,
        trained: Mapping[str, Params] | None = None,
        start: Task | None = None,
    ) -> Task:
        """The task that asks a system a benchmark's items and grades its answers.

        Args:
            trained: params under which an agent (an output such as ``critic-sft``) was trained, if
                not ``params``.
            start: a cell whose calls are known already, so that an equal plan, picture or judgment
                is not made again.
        """
        agents = dict.fromkeys(AGENTS[system])
        models = [name for name in agents if name in MODELS and name != "vlm"]
        sources = {name: (trained or {}).get(name, params) for name in models}
        folders = {name: self.output(source, name) for name, source in sources.items()}
        before = [self.stage(of, stage_of(name).name).folder for name, of in sources.items()]
        sections = params.settings.model_dump(
            mode="json", include={"seed", "models", "teacher", "evaluate", "grading"}
        )
        key = _key(
            benchmark,
            system,
            sections,
            [folder.name for folder in before],
            start.folder.name if start else None,
            self._code(answers.__name__),
            self._code(graders.__name__),
        )
        return self._add(
            Task(
                f"seed {params.settings.seed}: {benchmark} × {label}",
                self.out / "cells" / benchmark / label / key,
                partial(
                    _run_cell,
                    root=self.root,
                    params=params.path,
                    benchmark=benchmark,
                    system=system,
                    models={"vlm": self.root / "data/vlm", **folders},
                    start=start.folder if start else None,
                ),
                (*before, *([start.folder] if start else [])),
            )
        )

    def critics(self, params: Params, cases: int, models: Mapping[str, tuple[Params, str]]) -> Task:
        """The task that tries critics (name → params and output) on the same failed steps."""
        folders = {name: self.output(*source) for name, source in models.items()}
        before = [self.stage(of, stage_of(output).name) for of, output in models.values()]
        sections = params.settings.model_dump(mode="json", include={"seed", "models"})
        key = _key(
            cases,
            sections,
            list(folders),
            [task.folder.name for task in before],
            self._code(repairs.__name__),
        )
        return self._add(
            Task(
                f"seed {params.settings.seed}: {len(models)} critics on {cases} failed steps",
                self.out / "critics" / key,
                partial(
                    _run_critics,
                    root=self.root,
                    params=params.path,
                    models=folders,
                    count=cases,
                ),
                tuple(task.folder for task in before),
            )
        )

    def after(
        self,
        name: str,
        kind: str,
        work: Callable[[Path], None],
        needs: Sequence[Task],
        modules: Sequence[str],
        *parts: object,
    ) -> Task:
        """A task of a study's own, found by its needs, the code of ``modules`` and ``parts``."""
        before = [task.folder for task in needs]
        key = _key(list(parts), [one.name for one in before], [self._code(one) for one in modules])
        return self._add(Task(name, self.out / kind / key, work, tuple(before)))

    def run(self, jobs: int, said: Callable[[str], None]) -> None:
        """Carry out all tasks that are not done yet, by the order of the stages; many short ones
        are left for the end, so that no processor waits there for a long one."""
        order = [spec.name for spec in STAGES]

        def rank(task: Task) -> int:
            stage = task.folder.parent.name
            return order.index(stage) if stage in order else len(order)

        run_all(sorted(self.tasks.values(), key=rank), jobs, said)

    def _add(self, task: Task) -> Task:
        return self.tasks.setdefault(task.folder, task)

    @cache  # noqa: B019  (a lab lives as long as its study)
    def _code(self, module: str) -> list[str]:
        return [self._digest(path) for path in code_of(module) if (self.root / path).exists()]

    @cache  # noqa: B019
    def _digest(self, path: str) -> str:
        return digest(self.root / path)


def graded(cell: Task, benchmark: str, system: SystemName) -> Graded:
    """The grades of a cell that is done."""
    return Graded.read(cell.folder / benchmark / system / "graded.json")


def stage_of(output: str) -> StageSpec:
    """The stage that makes an output (``critic-rl``)."""
    return next(spec for spec in STAGES if output in spec.outs)


def _key(*parts: object) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def _link(folder: Path, links: Mapping[str, Path]) -> None:
    for path, target in links.items():
        place = folder / path
        place.parent.mkdir(parents=True, exist_ok=True)
        if not place.is_symlink():
            place.symlink_to(target, target_is_directory=target.is_dir())


def _run_stage(folder: Path, *, stage: str, params: Path, links: Mapping[str, Path]) -> None:
    shutil.copy(params, folder / "params.yaml")
    _link(folder, links)
    settings = load_settings(folder / "params.yaml")
    run_stage(find_stage(stage), settings, folder, track=False)


def _run_cell(
    folder: Path,
    *,
    root: Path,
    params: Path,
    benchmark: str,
    system: SystemName,
    models: Mapping[str, Path],
    start: Path | None,
) -> None:
    settings = load_settings(params)
    torch.set_num_threads(1)
    _link(folder, {"data": root / "data"})
    if start is not None and not (folder / CALLS).exists():
        part = folder / f"{CALLS}.part"
        shutil.copy(start / CALLS, part)
        part.replace(folder / CALLS)
    calls = CallCache(folder / CALLS)
    stage = StageRun(find_stage(f"generate@{benchmark}"), folder, folder, folder, None)
    remotes = cast.remotes(settings.remote, stage)
    edition = open_edition(benchmark, settings.evaluate, settings.seed)
    cell = folder / benchmark / system
    if not (cell / answers.FIGURES).exists():
        shutil.rmtree(cell, ignore_errors=True)
        cell.mkdir(parents=True)
        players = answers.Players(settings, dict(models), remotes, calls)
        player, generator = players.system(system)
        answers.fill(cell, edition.requests, player, generator, stage, seed=settings.seed)
    told = list(store.read_trajectories(cell / answers.TRAJECTORIES))
    with_text = writes_text(parts_of(system, settings.evaluate))
    edition.write(cell, told, with_text=with_text)
    graded = edition.grade(cell, graders.open_grader(settings, remotes, [edition]))
    figures = json.loads((cell / answers.FIGURES).read_text(encoding="utf-8"))
    replace(graded, run=figures, data=edition.data).save(cell / "graded.json")
    calls.close()


def _run_critics(
    folder: Path, *, root: Path, params: Path, models: Mapping[str, Path], count: int
) -> None:
    settings = load_settings(params)
    torch.set_num_threads(1)
    _link(folder, {"data": root / "data"})
    stage = StageRun(find_stage("evaluate"), folder, folder, folder, None)
    remotes, options = cast.remotes(settings.remote, stage), settings.evaluate
    generator = cast.generator(settings.models.generator_named(options.generator), remotes)

    def load(model: Path) -> ChatModel:
        return ChatModel.from_pretrained(
            model,
            device=_device(),
            dtype=settings.models.vlm_dtype,
            batch_size=options.batch_size,
            max_new_tokens=options.critic_max_new_tokens,
            max_image_pixels=settings.models.max_image_pixels,
        )

    repairs.try_critics(
        folder,
        {name: partial(load, model) for name, model in models.items()},
        generator,
        count,
        settings.seed,
        settings.models.dialogue,
        settings.teacher.pocket.wording,
    )


def _device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"
