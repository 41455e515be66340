"""``interloom data``: out of the project in each released format, and back into shards and rows."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from data_project import HERE, Project
from typer.testing import CliRunner

from interloom.construct import exchange, store
from interloom.errors import InterloomError


@pytest.fixture
def project(copied_project: Project, monkeypatch: pytest.MonkeyPatch) -> Project:
    for name in ("params.yaml", "dvc.yaml"):
        copied_project[name].write_bytes((HERE / name).read_bytes())
    monkeypatch.chdir(copied_project.root)
    return copied_project


def called(*words: str) -> str:
    done = CliRunner().invoke(exchange.app, words, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def trajectories(folder: str) -> dict:
    return {one.request.id: one for one in store.read_trajectories(Path(folder))}


@pytest.mark.parametrize("kind", ["planner-sft", "critic-sft"])
def test_chats_are_written_and_checked(kind: exchange.Kind, project: Project):
    said = called("export", kind, "out")
    number = len(list(store.read_rows(project[f"outputs/{kind[:-4]}-data/sft.parquet"])))
    assert said == f"{number} records in out/{exchange.FILES[kind]}\n"
    path = f"out/{exchange.FILES[kind]}"
    assert called("import", kind, path) == f"{number} records, all sound\n"
    with pytest.raises(InterloomError, match=r"leave rows.parquet out to check them"):
        called("import", kind, path, "rows.parquet")


def test_what_is_written_is_read_again(project: Project):
    mine = trajectories("outputs/trajectories")
    called("export", "execution-records", "records")
    said = called("import", "execution-records", "records", "again")
    planned = {name: one for name, one in mine.items() if one.plan is not None}
    assert said == f"{len(planned)} records in again\n"
    assert trajectories("again") == planned
    assert store.about(Path("again/part-00000.parquet"))["source"] == "execution-records"

    called("export", "critic-rl", "out")
    called("import", "critic-rl", "out/critic_rl.jsonl", "rl.parquet")
    rl = project["outputs/critic-data/rl.parquet"]
    assert list(store.read_rows(Path("rl.parquet"))) == list(store.read_rows(rl))


def test_sequences_with_and_without_what_was_refused(project: Project):
    for kind in ("interleaved", "reflections"):
        called("export", kind, "out")
        called("import", kind, f"out/{kind}.jsonl", kind)
    plain, told = trajectories("interleaved"), trajectories("reflections")
    assert set(plain) == set(told)
    tries = [sum(len(step.attempts) for t in some.values() for step in t.steps)
             for some in (plain, told)]  # fmt: skip
    assert tries[0] < tries[1]


def test_wrong_files_are_named_and_leave_nothing(project: Project):
    called("export", "critic-rl", "out")
    path = Path("out/critic_rl.jsonl")
    lines = path.read_text().splitlines()
    record = json.loads(lines[1])
    del record["origin_prompt"]
    path.write_text("\n".join([lines[0], json.dumps(record)]))
    for out in ((), ("rl.parquet",)):
        with pytest.raises(InterloomError, match=r"record 1, field 'origin_prompt': missing"):
            called("import", "critic-rl", str(path), *out)
    assert not Path("rl.parquet").exists()
    Path("empty").mkdir()
    for words, said in (
        (("execution-records", "empty", "shards"), "empty: no records"),
        (("execution-records", "absent"), "absent: no such folder"),
        (("interleaved", "absent.jsonl", "shards"), r"absent\.jsonl: cannot be read"),
        (("critic-rl", str(path), "empty"), "empty is there already"),
    ):
        with pytest.raises(InterloomError, match=said):
            called("import", *words)
    assert not Path("shards").exists()


def test_two_records_of_one_name(project: Project):
    called("export", "execution-records", "records")
    first = next(Path("records").glob("*/execution_record.json"))
    (Path("records") / "copy").mkdir()
    record = json.loads(first.read_text())
    record["steps"] = []
    record["interloom"]["images"] = []
    (Path("records") / "copy" / first.name).write_text(json.dumps(record))
    with pytest.raises(InterloomError, match="two records are called"):
        called("import", "execution-records", "records", "again")
    assert not Path("again").exists()
