"""Every kind of fault, put into sound data, is caught by the suite that is there for it."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from data_project import Project
from sample_trajectories import picture

from interloom import images
from interloom.backends.pocket import on_evaluation_side
from interloom.construct import expectations, frames, store
from interloom.construct.critic_data import critic_schema
from interloom.construct.expectations import Violation, check
from interloom.construct.general import general_schema
from interloom.construct.planner_data import planner_schema
from interloom.construct.prompts import prompt_schema
from interloom.errors import InterloomError
from interloom.pocket.language import describe_scene
from interloom.pocket.scene import random_scene, scene_split

Rows = list[dict[str, Any]]
SIZES = ["96x96"]


@pytest.fixture(scope="module")
def known(data_project: Project) -> set[str]:
    return {row["id"] for row in store.read_rows(data_project["outputs/prompts.parquet"])}


def changed(path: Path, target: Path, change: Callable[[Rows], object], schema: pa.Schema) -> Path:
    """A copy of a data file in which ``change`` was at work."""
    rows = list(store.read_rows(path))
    change(rows)
    store.write_table(target, rows, schema, {})
    return target


def only(violations: list[Violation], suite: str, expectation: str, *rows: str) -> None:
    """One violation of that kind, naming these rows."""
    found = [v for v in violations if expectation in v.expectation]
    assert found, [str(v) for v in violations]
    assert {v.suite for v in violations} == {suite}
    if rows:
        assert set(rows) <= set(found[0].rows), found[0]


def evaluation_prompt() -> str:
    rng = random.Random(0)
    while scene_split(scene := random_scene(rng, 3)) != "evaluation":
        pass
    return describe_scene(scene)


def broken() -> bytes:
    return picture(5)[:80]


def small() -> bytes:
    from PIL import Image

    return images.to_png(Image.new("RGB", (64, 64)))


# --- prompts --------------------------------------------------------------------------------------


def first(rows: Rows, kind: str) -> dict[str, Any]:
    return next(row for row in rows if row["kind"] == kind)


PROMPT_FAULTS: dict[str, tuple[Callable[[Rows], object], str]] = {
    "repeated id": (lambda r: r[1].update(id=r[0]["id"]), "be_unique of 'id'"),
    "copied request": (lambda r: r.append(r[0] | {"id": "copy"}), "be_unique of 'content'"),
    "other spelling": (
        lambda r: r.append(r[0] | {"id": "copy", "text": "  " + r[0]["text"].upper()}),
        "be_unique of 'content'",
    ),
    "empty text": (lambda r: r[3].update(text=" "), "match_regex of 'text'"),
    "no category": (lambda r: r[3].update(category=None), "not_be_null of 'category'"),
    "unknown kind": (lambda r: r[3].update(kind="poem"), "be_in_set of 'kind'"),
    "broken picture": (
        lambda r: first(r, "continuation").update(images=[broken()], captions=[]),
        "match_regex of 'pictures'",
    ),
    "picture is missing": (
        lambda r: first(r, "continuation").update(images=[], captions=[]),
        "be_in_set of 'pictures_fit'",
    ),
    "caption is missing": (
        lambda r: first(r, "text_response").update(captions=["one too few"] * 9),
        "be_in_set of 'captions_fit'",
    ),
    "benchmark prompt": (
        lambda r: first(r, "create").update(text=evaluation_prompt()),
        "be_in_set of 'held_out'",
    ),
}


@pytest.mark.parametrize("fault", PROMPT_FAULTS)
def test_prompt_faults(fault: str, data_project: Project, tmp_path: Path):
    change, expectation = PROMPT_FAULTS[fault]
    path = changed(
        data_project["outputs/prompts.parquet"], tmp_path / "p.parquet", change,
        prompt_schema().remove_metadata(),
    )  # fmt: skip
    table = frames.prompts_table(path, on_evaluation_side)
    only(check({"prompts": (table, expectations.prompt_suite())}), "prompts", expectation)


# --- trajectories ---------------------------------------------------------------------------------


def begun(rows: Rows) -> dict[str, Any]:
    """A trajectory that made pictures in two steps or more."""
    return next(row for row in rows if row["attempts"] and len(row["attempts"]) > 1)


TRAJECTORY_FAULTS: dict[str, tuple[Callable[[Rows], object], str]] = {
    "repeated id": (lambda r: r.append(r[0]), "be_unique of 'id'"),
    "no text": (lambda r: r[0].update(text=None), "be_in_set of 'malformed'"),
    "unknown request": (lambda r: r[0].update(id="p99999"), "be_in_set of 'known'"),
    "step numbers": (
        lambda r: begun(r)["plan"][1].update(step_number=7),
        "be_in_set of 'plan_faults'",
    ),
    "numbered text": (
        lambda r: begun(r)["plan"][0].update(instruction="Step 1: draw"),
        "be_in_set of 'plan_faults'",
    ),
    "no steps": (lambda r: r[0].update(plan=[], attempts=[]), "be_between of 'plan_length'"),
    "endless plan": (
        lambda r: r[0].update(plan=r[0]["plan"] * 50), "be_between of 'plan_length'"
    ),
    "too many attempts": (
        lambda r: begun(r).update(attempts=[begun(r)["attempts"][0] * 9]),
        "be_between of 'most_attempts'",
    ),
    "broken picture": (
        lambda r: begun(r)["attempts"][0][0].update(image=broken()),
        "be_in_set of 'pictures'",
    ),
    "other size": (
        lambda r: begun(r)["attempts"][0][0].update(image=small()),
        "be_in_set of 'pictures'",
    ),
    "picture is missing": (
        lambda r: begun(r)["attempts"][0][-1].update(image=None),
        "be_in_set of 'links'",
    ),
    "steps are missing": (
        lambda r: begun(r).update(attempts=begun(r)["attempts"][:1]),
        "be_in_set of 'links'",
    ),
    "most fail": (
        lambda r: [x.update(failure_role="planner", failure_reason="down") for x in r[:30]],
        "non_null_values_to_be_between of 'failure'",
    ),
}  # fmt: skip


@pytest.mark.parametrize("fault", TRAJECTORY_FAULTS)
def test_trajectory_faults(fault: str, data_project: Project, known: set[str], tmp_path: Path):
    change, expectation = TRAJECTORY_FAULTS[fault]
    schema = store.trajectory_schema()
    changed(data_project["outputs/trajectories"], tmp_path / "p.parquet", change, schema)
    table = frames.trajectories_table(tmp_path, known)
    suite = expectations.trajectory_suite(SIZES, 4)
    only(check({"trajectories": (table, suite)}), "trajectories", expectation)


# --- critic data ----------------------------------------------------------------------------------


def passed(rows: Rows) -> dict[str, Any]:
    return next(row for row in rows if row["success"])


CRITIC_FAULTS: dict[str, tuple[Callable[[Rows], object], str]] = {
    "repeated id": (lambda r: r[1].update(id=r[0]["id"]), "be_unique of 'id'"),
    "copied row": (lambda r: r.append(r[0] | {"id": r[0]["id"] + "0"}), "unique of 'content'"),
    "unknown request": (lambda r: r[0].update(id="p99999/1/0"), "be_in_set of 'known'"),
    "broken before": (lambda r: r[0].update(before=broken()), "match_regex of 'before'"),
    "broken after": (lambda r: r[0].update(after=broken()), "be_in_set of 'after'"),
    "after is missing": (lambda r: r[0].update(after=None), "be_in_set of 'after'"),
    "other size": (lambda r: r[0].update(after=small()), "be_in_set of 'after'"),
    "no prompt": (lambda r: r[0].update(prompt=None), "not_be_null of 'prompt'"),
    "empty refinement": (lambda r: r[0].update(refine_prompt=""), "regex of 'refine_prompt'"),
    "no reasoning": (lambda r: r[0].update(reasoning=""), "match_regex of 'reasoning'"),
    "no judgment": (lambda r: r[0].update(success=None), "not_be_null of 'success'"),
    "passed but changed": (
        lambda r: passed(r).update(refine_prompt="something else"),
        "be_in_set of 'repeats'",
    ),
    "score above 10": (lambda r: r[0].update(semantic=10.5), "be_between of 'semantic'"),
    "score below 0": (lambda r: r[0].update(quality=-1.0), "be_between of 'quality'"),
    "no score": (lambda r: r[0].update(quality=None), "not_be_null of 'quality'"),
    "score is no number": (lambda r: r[0].update(semantic=float("nan")), "null of 'semantic'"),
    "wrong split": (lambda r: r[0].update(split="rl"), "be_in_set of 'split'"),
    "benchmark prompt": (
        lambda r: r[0].update(prompt=evaluation_prompt(), before=None),
        "be_in_set of 'held_out'",
    ),
    "all true": (
        lambda r: [x.update(success=True, refine_prompt=x["used_prompt"]) for x in r],
        "mean_to_be_between of 'positive'",
    ),
}


@pytest.mark.parametrize("fault", CRITIC_FAULTS)
def test_critic_faults(fault: str, data_project: Project, known: set[str], tmp_path: Path):
    change, expectation = CRITIC_FAULTS[fault]
    path = changed(
        data_project["outputs/critic-data/sft.parquet"], tmp_path / "sft.parquet", change,
        critic_schema(),
    )  # fmt: skip
    table = frames.critic_table(path, known, on_evaluation_side)
    suite = expectations.critic_suite("sft", SIZES, (0.4, 0.6))
    only(check({"critic-sft": (table, suite)}), "critic-sft", expectation)


def test_corpus_faults(data_project: Project, known: set[str]):
    def table(name: str):
        path = data_project[f"outputs/critic-data/{name}.parquet"]
        return frames.critic_table(path, known, on_evaluation_side)

    sft, rl = table("sft"), table("rl")
    suite = expectations.corpus_suite
    for facts, expectation in (
        (frames.corpus_table(sft.head(len(rl)), rl), "be_between of 'sft_rl_ratio'"),
        (frames.corpus_table(sft, rl.head(0)), "not_be_null of 'sft_rl_ratio'"),
        (frames.corpus_table(sft, sft.head(1)), "be_between of 'shared_rows'"),
    ):
        found = [v.expectation for v in check({"critic-corpus": (facts, suite(2.0, 0.25))})]
        assert any(expectation in text for text in found), (expectation, found)
    assert check({"critic-corpus": (frames.corpus_table(sft, rl), suite(2.0, 0.25))}) == []


# --- planner data ---------------------------------------------------------------------------------

PLANNER_FAULTS: dict[str, tuple[Callable[[Rows], object], str]] = {
    "repeated id": (lambda r: r[1].update(id=r[0]["id"]), "be_unique of 'id'"),
    "copied row": (lambda r: r.append(r[0] | {"id": r[0]["id"] + "-"}), "unique of 'content'"),
    "unknown request": (lambda r: r[0].update(id="p99999"), "be_in_set of 'known'"),
    "no step number": (
        lambda r: r[0]["plan"][0].update(step_number=0),
        "be_in_set of 'malformed'",
    ),
    "no plan": (lambda r: r[0].update(plan=None), "be_between of 'plan_length'"),
    "numbering": (
        lambda r: first(r, "continuation")["plan"][0].update(step_number=1),
        "be_in_set of 'plan_faults'",
    ),
    "prompt in a text": (
        lambda r: first(r, "text_response")["plan"][0].update(prompt="draw"),
        "be_in_set of 'plan_faults'",
    ),
    "broken picture": (
        lambda r: first(r, "continuation")["images"].__setitem__(0, broken()),
        "match_regex of 'pictures'",
    ),
    "captions": (
        lambda r: first(r, "continuation").update(captions=["x"] * 30),
        "be_in_set of 'captions_fit'",
    ),
}


@pytest.mark.parametrize("fault", PLANNER_FAULTS)
def test_planner_faults(fault: str, data_project: Project, known: set[str], tmp_path: Path):
    change, expectation = PLANNER_FAULTS[fault]
    path = changed(
        data_project["outputs/planner-data/sft.parquet"], tmp_path / "sft.parquet", change,
        planner_schema(),
    )  # fmt: skip
    table = frames.planner_table(path, known)
    only(check({"planner": (table, expectations.planner_suite())}), "planner", expectation)


GENERAL_FAULTS: dict[str, tuple[dict[str, object], str]] = {
    "no answer": ({"answer": " "}, "match_regex of 'answer'"),
    "a picture too many": ({"images": [images.white(8, 8)]}, "be_in_set of 'pictures_fit'"),
    "no list of pictures": ({"images": None}, "be_in_set of 'pictures_fit'"),
    "no picture": (
        {"question": "<image>what is it", "images": [b"?"]},
        "match_regex of 'pictures'",
    ),
}


@pytest.mark.parametrize("fault", GENERAL_FAULTS)
def test_faults_of_what_is_rehearsed(fault: str, data_project: Project, tmp_path: Path):
    change, expectation = GENERAL_FAULTS[fault]
    path = changed(
        data_project["outputs/planner-data/general.parquet"], tmp_path / "general.parquet",
        lambda rows: rows[2].update({"question": "what is it", "images": [], **change}),
        general_schema(),
    )  # fmt: skip
    table = frames.general_table(path)
    found = check({"planner-general": (table, expectations.general_suite())})
    only(found, "planner-general", expectation, "general-00002")


# --- files and the gate ---------------------------------------------------------------------------


def drop_column(path: Path) -> None:
    pq.write_table(pq.read_table(path).drop_columns(["quality"]), path)


def change_type(path: Path) -> None:
    table = pq.read_table(path)
    place = table.schema.get_field_index("semantic")
    pq.write_table(table.set_column(place, "semantic", table["semantic"].cast(pa.string())), path)


def empty(path: Path) -> None:
    pq.write_table(pq.read_table(path).slice(0, 0), path)


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (drop_column, "quality is missing"),
        (change_type, "semantic is string, wanted double"),
        (empty, "be_between of 'rows'"),
        (lambda path: path.write_bytes(b"PAR1"), "not a sound Parquet file"),
        (Path.unlink, "not a sound Parquet file"),
    ],
)
def test_file_faults_stop_the_gate(
    fault: Callable[[Path], None], said: str, copied_project: Project
):
    fault(copied_project["outputs/critic-data/rl.parquet"])
    with pytest.raises(InterloomError, match=rf"files: .*critic-data/rl\.parquet|{said}") as caught:
        copied_project.run("validate")
    assert said in str(caught.value)


def test_the_gate_names_everything_and_keeps_the_bad_rows(copied_project: Project):
    path = copied_project["outputs/critic-data/sft.parquet"]
    rows = list(store.read_rows(path))
    for number in range(7):
        rows[number]["semantic"] = 12.5
    rows[2]["reasoning"] = ""
    store.write_table(path, rows, critic_schema(), {})
    old = copied_project["outputs/validation/result.json"].read_bytes()
    with pytest.raises(InterloomError) as caught:
        copied_project.run("validate")
    text = str(caught.value)
    assert "2 expectations do not hold, 7 bad rows" in text
    assert copied_project["outputs/validation/result.json"].read_bytes() == old
    (kept,) = copied_project[".interloom/work/validate"].glob("*/refused")
    listed = [json.loads(line) for line in (kept / "quarantine.jsonl").read_text().splitlines()]
    assert {entry["id"] for entry in listed} == {row["id"] for row in rows[:7]}
    assert [len(e["violates"]) for e in listed if e["id"] == rows[2]["id"]] == [2]
    assert (kept / "data-docs" / "index.html").exists()


def test_messages_give_suite_expectation_count_and_samples():
    violation = Violation("critic-sft", "between of 'semantic'", "12.5", 7, tuple("abcdefg"))
    assert str(violation) == (
        "critic-sft: between of 'semantic': 7 × 12.5; rows a, b, c, d, e and 2 more"
    )
