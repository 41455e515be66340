"""The command line. Nothing heavy is imported until a command needs it."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from typer.core import TyperGroup

from interloom.errors import InterloomError
from interloom.project import find_project

if TYPE_CHECKING:
    from interloom.settings.file import Settings
    from interloom.stages import StageSpec

app = typer.Typer(
    name="interloom",
    help="Interleaved image generation: every step planned, checked and corrected.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
params_app = typer.Typer(help="Show, check and switch the params file.", no_args_is_help=True)
app.add_typer(params_app, name="params")
feedback_app = typer.Typer(help="What people said of served pictures.", no_args_is_help=True)
app.add_typer(feedback_app, name="feedback")


def _lazy(module: str) -> type[TyperGroup]:
    """A group whose commands are the typer ``app`` of a module that is imported when called."""

    class LazyGroup(TyperGroup):
        def make_context(self, info_name: str | None, args: list[str], **extra: Any) -> Any:
            command = typer.main.get_group(import_module(module).app)
            return command.make_context(info_name, args, **extra)

    return LazyGroup


LAZY = {
    "show": ("interloom.show", "Look at the data that was made."),
    "data": ("interloom.construct.exchange", "The authors' released files: write and read them."),
    "train": ("interloom.train.commands", "What one wants to know before a long training."),
    "benchmarks": ("interloom.benchmarks.commands", "Systems, judges' costs, sound editions."),
    "study": ("interloom.study.commands", "Questions that take many trainings."),
    "pocket": ("interloom.pocket.commands", "The pocket world: train its miniatures, look at it."),
    "registry": ("interloom.promotion.commands", "Champion and challenger: judge, promote, undo."),
    "cluster": ("interloom.cluster.commands", "Kubernetes: what would fail there."),
}
"""Groups of commands that live elsewhere: name → (module with a typer ``app``, help)."""
for _name, (_module, _help) in LAZY.items():
    app.add_typer(typer.Typer(), name=_name, help=_help, cls=_lazy(_module))


def _enter_project() -> Path:
    root = find_project()
    os.chdir(root)
    return root


@app.command()
def run(
    stage: Annotated[str, typer.Argument(help="Name of the stage, see `interloom stages`.")],
    params: Annotated[Path, typer.Option(help="Params file.")] = Path("params.yaml"),
    track: Annotated[bool, typer.Option(help="Record the run in MLflow.")] = True,
    estimate: Annotated[
        bool, typer.Option("--estimate", help="Of `evaluate`: say its judge calls and their cost.")
    ] = False,
    inputs: Annotated[
        Path | None, typer.Option(hidden=True, help="In a pod: what the caller says of the files.")
    ] = None,
) -> None:
    """Run one stage now, whether it is stale or not (`dvc repro` asks DVC first): here, or in pods
    if `cluster.stages` says so."""
    if estimate:
        _estimate(stage, params)
        return
    from interloom.settings.file import load_settings
    from interloom.stages import cells, find_stage

    # Torch's CPU threads wait by spinning; on a machine that is busy with anything else that makes
    # training several times slower. Read when torch is loaded.
    os.environ.setdefault("GOMP_SPINCOUNT", "0")
    root = _enter_project()
    settings = load_settings(params)
    for name in settings.cluster.stages:
        find_stage(name)
    for cell in cells(find_stage(stage), settings):
        _run_cell(cell, settings, root, track, inputs)


def _run_cell(
    spec: StageSpec, settings: Settings, root: Path, track: bool, inputs: Path | None
) -> None:
    from interloom.runner import run_stage

    if settings.cluster.runs(spec.family):
        from interloom.cluster.executor import run_on_cluster

        run_on_cluster(spec, settings, root, track=track)
    elif inputs is not None:
        from interloom.cluster.data import Inputs

        given = Inputs.read(inputs)
        # On a shared volume the outputs are safe when they stand in place.
        keep = given.kind == "dvc"
        run_stage(spec, settings, root, track=track, inputs=given.files, keep_work=keep)
    else:
        run_stage(spec, settings, root, track=track)


def _estimate(stage: str, params: Path) -> None:
    if stage != "evaluate":
        raise InterloomError(f"--estimate is for the stage evaluate, not for {stage}")
    from interloom.benchmarks.commands import estimate

    estimate(params)


@app.command()
def review(
    by: Annotated[str, typer.Option(help="Who decides; a story wants two people.")],
    stories: Annotated[Path, typer.Option(help="What is looked at.")] = Path(
        "outputs/adaptive-data/stories.parquet"
    ),
    to: Annotated[Path, typer.Option(help="File that decisions are appended to.")] = Path(
        "reviews/adaptive.jsonl"
    ),
    port: Annotated[int, typer.Option(help="On 127.0.0.1.")] = 8020,
) -> None:
    """A page on which the adaptive system's stories are accepted or rejected, one by one."""
    import uvicorn

    from interloom.adaptive.files import read_stories
    from interloom.adaptive.review_page import make_app

    _enter_project()
    page = make_app(list(read_stories(stories)), to, by)
    typer.echo(f"Open http://127.0.0.1:{port} (Ctrl-C ends it); decisions go to {to}")
    uvicorn.run(page, host="127.0.0.1", port=port, log_level="warning")


@app.command()
def stages(
    write: Annotated[bool, typer.Option("--write", help="Write dvc.yaml anew.")] = False,
) -> None:
    """List the stages: what each does, reads and writes."""
    from interloom.code import code_of
    from interloom.stages import ITEM, STAGES, to_dvc

    root = _enter_project()
    if write:
        import yaml

        content = to_dvc({spec.name: code_of(spec.module) for spec in STAGES})
        text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=100)
        head = "# Written by `interloom stages --write` from src/interloom/stages.py.\n"
        (root / "dvc.yaml").write_text(head + text, encoding="utf-8")
        typer.echo(f"wrote {root / 'dvc.yaml'}: {len(content['stages'])} stages")
        return
    for spec in STAGES:
        made = [path.replace(ITEM, "*") for path in spec.products.values()]
        missing = [path for path in made if not list(root.glob(path))]
        typer.echo(f"{spec.name:<18}{'  ' if missing else '✓ '}{spec.summary}")
        typer.echo(f"{'':<20}{', '.join(spec.deps) or 'nothing'} → {', '.join(spec.outs)}")


@params_app.command("show")
def params_show(
    params: Annotated[Path, typer.Option(help="Params file.")] = Path("params.yaml"),
) -> None:
    """Print the checked params, one `key = value` a line."""
    from interloom.runner import flatten
    from interloom.settings.file import load_settings

    _enter_project()
    for key, value in flatten(load_settings(params).model_dump(mode="json")).items():
        typer.echo(f"{key} = {value}")


@params_app.command("check")
def params_check() -> None:
    """Check params.yaml and every file in profiles/."""
    from interloom.settings.file import load_settings

    _enter_project()
    for path in (Path("params.yaml"), *sorted(Path("profiles").glob("*.yaml"))):
        typer.echo(f"{path}: profile {load_settings(path).profile}, good")


@params_app.command("set")
def params_set(
    changes: Annotated[list[str], typer.Argument(help="KEY=VALUE, such as prompts.count=80.")],
) -> None:
    """Change values in params.yaml; it stays as it was if one of them is not allowed."""
    from interloom.settings.file import change_params

    change_params(_enter_project() / "params.yaml", changes)


@params_app.command("use")
def params_use(
    profile: Annotated[str, typer.Argument(help="A file in profiles/, or the active one.")],
) -> None:
    """Make a profile the active params.yaml; the present one is kept in profiles/."""
    from interloom.settings.file import use_profile

    typer.echo(use_profile(_enter_project(), profile))


@app.command()
def doctor() -> None:
    """Check versions, trackers, disk, remote, credentials and GPU; say what is disabled."""
    from interloom.doctor import examine

    problems = 0
    for finding in examine(find_project()):
        typer.echo(finding.line())
        problems += finding.level == "missing"
    raise typer.Exit(1 if problems else 0)


@app.command()
def lifecycle(
    profile: Annotated[str | None, typer.Option(help="Profile to switch to first.")] = None,
    from_stage: Annotated[str | None, typer.Option("--from", help="Start at this stage.")] = None,
    only: Annotated[str | None, typer.Option(help="Run just this stage.")] = None,
    force: Annotated[bool, typer.Option(help="Run stages even if they are up to date.")] = False,
    timeout_minutes: Annotated[
        float | None, typer.Option(help="For every stage; else as in `orchestration`.", min=0.01)
    ] = None,
    retries: Annotated[
        int | None, typer.Option(help="For every stage; else as in `orchestration`.", min=0)
    ] = None,
    system: Annotated[
        Literal["agents", "adaptive"] | None,
        typer.Option(help="Whose stages; those of a named stage, else the agents'."),
    ] = None,
) -> None:
    """Run the whole lifecycle of a system as a Prefect flow over the DVC stages."""
    root = _enter_project()
    from flows.launch import launch

    limits: dict[str, Any] = {"timeout_minutes": timeout_minutes, "retries": retries}
    status = launch(
        root,
        profile=profile,
        from_stage=from_stage,
        only=only,
        force=force,
        system=system,
        **limits,
    )
    raise typer.Exit(status)


@app.command()
def repair() -> None:
    """Make DVC usable again after a kill that cut off its own files (dvc.lock, rwlock)."""
    from interloom import dvc_state

    done = dvc_state.repair(_enter_project())
    typer.echo("\n".join(done) or "nothing to repair")


@app.command()
def cost(
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a row.")] = False,
) -> None:
    """What calls to remote models have cost: by backend, model and stage."""
    import json

    from interloom.backends.ledger import LEDGER, Ledger, as_table
    from interloom.cache import CACHE, kept_answers
    from interloom.settings.file import load_settings

    root = _enter_project()
    ledger = Ledger(root / LEDGER)
    costs = ledger.costs()
    if as_json:
        typer.echo(json.dumps([row._asdict() for row in costs], indent=1))
        return
    typer.echo(as_table(costs) if costs else "no remote call has been made here")
    for name, remote in load_settings().remote:
        spent, _, _ = ledger.spent(name)
        if spent:
            typer.echo(
                f"{name}: {spent:.2f} of {remote.budget_usd:.2f} US$ (remote.{name}.budget_usd)"
            )
    kept, size = kept_answers(root)
    if kept:
        typer.echo(f"{kept} answers are kept in {CACHE} ({size / 2**20:.1f} MiB): asked for free")


@app.command()
def plan(
    profile: Annotated[
        str | None, typer.Option(help="A file in profiles/; the active params if not given.")
    ] = None,
    rows: Annotated[
        str | None,
        typer.Option(help="Rows of planner, critic SFT and critic RL: N,N,N, or `published`."),
    ] = None,
    calibration: Annotated[
        Path | None, typer.Option(help="Another file of figures, see --figures.")
    ] = None,
    figures: Annotated[
        bool, typer.Option("--figures", help="Show what the estimates rest on.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Everything, as JSON.")] = False,
) -> None:
    """What a lifecycle would take: GPU-hours, memory, storage, API calls and money."""
    from interloom.planning.commands import tell

    typer.echo(tell(_enter_project(), profile, rows, calibration, figures=figures, as_json=as_json))


@app.command()
def lineage(
    model: Annotated[str, typer.Argument(help="models:/NAME@ALIAS or models:/NAME/VERSION.")],
    restore: Annotated[
        bool, typer.Option("--restore", help="Put dvc.lock and uncommitted changes in this clone.")
    ] = False,
    compare: Annotated[
        bool, typer.Option("--compare", help="Hold data and metrics here against the model's.")
    ] = False,
    tolerance: Annotated[float, typer.Option(help="For metrics, relative.", min=0)] = 0.01,
) -> None:
    """Where a registered model comes from: run, commit, data, and the commands that rebuild it."""
    from interloom.catalogue import open_catalogue
    from interloom.promotion import origin

    if restore and compare:
        raise InterloomError("give --restore or --compare, not both")
    catalogue = open_catalogue(_enter_project())
    if restore:
        typer.echo("\n".join(origin.restore(catalogue, model)) or "nothing to restore")
    elif compare:
        text, same = origin.compare(catalogue, model, tolerance)
        typer.echo(text)
        raise typer.Exit(0 if same else 1)
    else:
        typer.echo(origin.tell(catalogue, model))


@app.command()
def serve(
    model: Annotated[
        str | None,
        typer.Option(
            help="models:/NAME@ALIAS, models:/NAME/VERSION, a model folder, or system:oracle and "
            "the like; the registered pipeline's @champion by default."
        ),
    ] = None,
    host: Annotated[str, typer.Option(help="Address; others than this machine need keys.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option(help="Port.")] = 8000,
    generator: Annotated[
        list[str] | None,
        typer.Option(help="Of a system: generator, generator_weak, or both, to choose from."),
    ] = None,
    log_texts: Annotated[bool, typer.Option(help="Write requests' texts to the log.")] = False,
    keys: Annotated[
        str | None, typer.Option(help="File of API keys instead of the one of serving.keys.")
    ] = None,
    params: Annotated[Path, typer.Option(help="Params file.")] = Path("params.yaml"),
) -> None:
    """Serve either system: OpenAI's Responses API, MLflow's /invocations, a page; until Ctrl-C."""
    from interloom.serve.commands import run_server

    run_server(_enter_project(), params, model, host, port, generator or [], log_texts, keys)


@app.command()
def serve_generator(
    generator: Annotated[
        str, typer.Option(help="Whose settings: generator or generator_weak of the params.")
    ] = "generator",
    model: Annotated[
        str | None, typer.Option(help="Another diffusers pipeline: a folder or a hub name.")
    ] = None,
    host: Annotated[str, typer.Option(help="Address; others than this machine need keys.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option(help="Port.")] = 8100,
    keys: Annotated[
        str | None, typer.Option(help="File of API keys instead of the one of serving.keys.")
    ] = None,
    params: Annotated[Path, typer.Option(help="Params file.")] = Path("params.yaml"),
) -> None:
    """Serve an image generator: OpenAI's Images API, for the backend `http`, until Ctrl-C."""
    from interloom.serve.commands import run_generator

    run_generator(_enter_project(), params, generator, model, keys, host=host, port=port)


@app.command()
def serve_key(
    name: Annotated[str, typer.Argument(help="Whose key it is.")],
    per_minute: Annotated[float, typer.Option(help="Requests per minute; 0 is no limit.")] = 60,
    params: Annotated[Path, typer.Option(help="Params file.")] = Path("params.yaml"),
) -> None:
    """Make an API key for `interloom serve`; only its hash is kept."""
    from interloom.serve.commands import make_key

    typer.echo("\n".join(make_key(_enter_project(), params, name, per_minute)))


@feedback_app.command("export")
def feedback_export(
    folder: Annotated[
        Path, typer.Argument(help="Folder to write to; the file is named after its content.")
    ] = Path("feedback"),
    track: Annotated[bool, typer.Option(help="Have DVC track the file.")] = True,
    params: Annotated[Path, typer.Option(help="Params file.")] = Path("params.yaml"),
    system: Annotated[
        Literal["agents", "adaptive"],
        typer.Option(help="Whose: the critic's data, or the unified model's stories."),
    ] = "agents",
) -> None:
    """Turn the feedback in MLflow's traces into data, as training reads it."""
    from interloom.serve.commands import export_feedback

    typer.echo("\n".join(export_feedback(_enter_project(), params, folder, track, system)))


@app.command()
def ui(
    mlflow_port: Annotated[int, typer.Option(help="Port of the MLflow UI.")] = 5000,
    prefect_port: Annotated[int, typer.Option(help="Port of the Prefect UI.")] = 4200,
) -> None:
    """Serve the MLflow and Prefect UIs on the results, until Ctrl-C."""
    from interloom.ui import serve

    serve(_enter_project(), mlflow_port, prefect_port)


@app.command()
def track() -> None:
    """Send records to MLflow that could not be written when their stage ran."""
    from interloom.tracking import send_kept

    typer.echo(send_kept(_enter_project()))


@app.command()
def version() -> None:
    """Print the version."""
    from importlib.metadata import version as installed

    typer.echo(f"interloom {installed('interloom')}")


def main(before: Sequence[str] = ()) -> None:
    """Entry point: users' errors are one line and status 2; ``before`` precedes the arguments."""
    try:
        app([*before, *sys.argv[1:]])
    except InterloomError as error:
        print(f"interloom: {error}", file=sys.stderr)
        sys.exit(2)
    except OSError as error:
        from interloom.faults import machine_fault

        fault = machine_fault(error)
        if fault is None:
            raise
        print(f"interloom: {fault}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
