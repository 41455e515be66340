from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from data_project import Project
from sample_trajectories import odd_ones, picture, trajectory

from interloom.construct import comm, interleaved, planner_data, store
from interloom.construct.interleaved import from_trajectory, to_trajectory
from interloom.dialogue import plan_faults
from interloom.errors import InterloomError
from interloom.records import Trajectory

MADE = trajectory("r", ((False, True), (True,), (False, False)))


def sequence(made: Trajectory, *, reflection: bool) -> interleaved.Interleaved:
    found = from_trajectory(made, reflection=reflection)
    assert found is not None
    return found


@pytest.mark.parametrize("reflection", [False, True])
def test_round_trip(reflection: bool, tmp_path: Path):
    given = MADE.request.model_copy(update={"images": (picture(70),), "kind": "continuation"})
    both = [MADE, MADE.model_copy(update={"request": given})]
    sequences = [sequence(one, reflection=reflection) for one in both]
    path = tmp_path / "interleaved.jsonl"
    assert interleaved.write(sequences, path) == 2
    assert list(interleaved.read(path)) == sequences


def test_the_text_is_the_released_one(tmp_path: Path):
    plain = interleaved.to_text(sequence(MADE, reflection=False), tmp_path)
    assert plain.startswith(
        "<gthink>part by part</gthink><plan>add part 1 of r</plan><image>images/"
    )
    assert plain.count("<image>") == 3 and ".png</image>.<info>about 1</info><plan>" in plain
    told = interleaved.to_text(sequence(MADE, reflection=True), tmp_path)
    assert told.count("<image>") == told.count("<critic><think>seen ") == 5
    assert '</think>{"success": false, "refine_prompt": "add part 1 of r!"}</critic><image>' in told


def test_what_a_sequence_says_of_the_trajectory():
    back = to_trajectory(sequence(MADE, reflection=True))
    for one, two in zip(MADE.steps, back.steps, strict=True):
        assert one.source == two.source and one.step.prompt == two.step.prompt
        assert [a.prompt for a in one.attempts] == [a.prompt for a in two.attempts]
        assert [a.critique for a in one.attempts] == [a.critique for a in two.attempts]
        assert [a.image for a in one.attempts] == [a.image for a in two.attempts]
    shown = sequence(MADE, reflection=False)
    accepted = [t.accepted.image for t in MADE.steps if t.accepted]
    assert [[p.image for p in part.pictures] for part in shown.parts] == [[a] for a in accepted]
    scored, unplanned, stopped, unjudged, told = (
        from_trajectory(one, reflection=True) for one in odd_ones()
    )
    assert scored and unjudged and not (unplanned or stopped or told)


def test_python_style_judgments_of_others(tmp_path: Path):
    path = tmp_path / "x.jsonl"
    interleaved.write([sequence(MADE, reflection=True)], path)
    (line,) = path.read_text().splitlines()
    value = json.loads(line)
    del value["id"], value["category"], value["images"]
    value["sequence"] = value["sequence"].replace(
        '{"success": false, "refine_prompt": "add part 1 of r!"}',
        "\n{'success': False, 'refine_prompt': 'add part 1 of r!'} ",
    )
    path.write_text(json.dumps(value) + "\n")
    (read,) = interleaved.read(path)
    assert read.id == "x/0" and read.parts == sequence(MADE, reflection=True).parts


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("<plan>", "<info>", r"field 'sequence'"),
        ("<gthink>", "well <gthink>", "text outside the marks: 'well"),
        ('"success": false', '"success": "no"', r"<critic>, field 'success': expected bool"),
        ('{"success": false', '"success": false', "unreadable <critic>"),
        ("images/", "pictures/", "no image 'pictures/"),
    ],
)
def test_faults_are_named(old: str, new: str, complaint: str, tmp_path: Path):
    path = tmp_path / "x.jsonl"
    interleaved.write([sequence(MADE, reflection=True)], path)
    (line,) = path.read_text().splitlines()
    value = json.loads(line)
    value["sequence"] = value["sequence"].replace(old, new, 1)
    path.write_text(json.dumps(value) + "\n")
    with pytest.raises(InterloomError, match=rf"x\.jsonl: record 0.*{complaint}"):
        list(interleaved.read(path))


def test_marks_in_texts_are_refused(tmp_path: Path):
    nasty = sequence(MADE, reflection=False).model_copy(update={"reasoning": "so </gthink> ha"})
    with pytest.raises(ValueError, match="a mark inside gthink"):
        interleaved.to_text(nasty, tmp_path)


# --- CoMM -----------------------------------------------------------------------------------------


def text(content: str) -> dict[str, Any]:
    return {"type": "text", "content": content}


def image(name: str) -> dict[str, Any]:
    return {"type": "image", "image_path": name, "url": "https://example.org/x"}


def document(name: str, steps: list[list[dict[str, Any]]], title: str | None = "fold a crane"):
    return {
        "data_id": name, "dataset_type": "instructables", "title": title,
        "summary_info": [], "step_info": steps,
    }  # fmt: skip


GOOD = document(
    "d1",
    [
        [text("You need paper.")],
        [text("Step 1: Fold\n it."), image("0.png")],
        [image("1.png"), text("Fold it again."), image("2.png")],
        [text("Done."), image("3.png")],
    ],
)
DOCUMENTS = [
    GOOD,
    document("lost", [[text("a"), image("0.png")], [text("b"), image("gone.png")]]),
    document("broken", [[text("a"), image("0.png")], [text("b"), image("broken.png")]]),
    document("short", [[text("a"), image("0.png")], [text("b")]]),
    document("long", [[text("a"), image("0.png")]] * 41),
    document("wordless", [[text("a"), image("0.png")], [image("1.png")]]),
    document("untitled", [[text("a"), image("0.png")], [text("b"), image("1.png")]], None),
]


@pytest.fixture
def comm_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "comm"
    (folder / "images").mkdir(parents=True)
    for number in range(4):
        (folder / f"images/{number}.png").write_bytes(picture(100 + number))
    (folder / "images/broken.png").write_bytes(picture(1)[:60])
    (folder / "train.json").write_text(json.dumps(DOCUMENTS))
    (folder / "train.jsonl").write_text("".join(json.dumps(d) + "\n" for d in DOCUMENTS))
    torch.save(DOCUMENTS, folder / "train.pth")
    return folder


@pytest.mark.parametrize("name", ["train.json", "train.jsonl", "train.pth"])
def test_documents_become_sequences_and_the_rest_is_counted(name: str, comm_folder: Path):
    lost: Counter[str] = Counter()
    (found,) = comm.read(comm_folder / name, lost)
    assert lost == {
        "picture-missing": 2, "too-short": 1, "too-long": 1, "step-without-text": 1, "no-title": 1,
    }  # fmt: skip
    assert found.id == "imported/d1" and found.text == "Show step by step: fold a crane"
    assert [part.plan for part in found.parts] == [
        "You need paper. Step 1: Fold it.", "Fold it again.", "Done.",
    ]  # fmt: skip
    assert [part.pictures[0].image for part in found.parts] == [picture(n) for n in (100, 102, 103)]
    for _, request, plan in planner_data.samples(to_trajectory(found), 9, 0):
        assert plan_faults(plan, request) == []


def test_a_document_may_number_its_steps(comm_folder: Path):
    steps = [[text(f"Step {n}: go on"), image(f"{n}.png")] for n in range(3)]
    (comm_folder / "n.json").write_text(json.dumps([document("d", steps)]))
    (found,) = comm.read(comm_folder / "n.json", Counter())
    assert {part.plan for part in found.parts} == {"go on"}


def test_wrong_files_are_named(comm_folder: Path):
    def complaint(name: str) -> str:
        with pytest.raises(InterloomError) as caught:
            list(comm.read(comm_folder / name, Counter()))
        return str(caught.value)

    (comm_folder / "a.json").write_text(json.dumps({"data": []}))
    assert "a.json: expected a list of records, found dict" in complaint("a.json")
    wrong = document("d", [[text("a"), {"type": "video"}]])
    (comm_folder / "b.json").write_text(json.dumps([GOOD, wrong]))
    assert "b.json: record 1, step_info[0], field 'type': 'video' is neither" in complaint("b.json")
    torch.save([Path("/")], comm_folder / "c.pth")
    assert "c.pth: not a file of plain values" in complaint("c.pth")
    assert "none.pth" in complaint("none.pth") and "none.jsonl" in complaint("none.jsonl")


def test_the_stage_takes_them_in_and_the_gate_lets_them_pass(
    copied_project: Project, comm_folder: Path
):
    options = copied_project.settings.planner_data.model_copy(
        update={"interleaved": str(comm_folder / "train.json")}
    )
    settings = copied_project.settings.model_copy(update={"planner_data": options})
    Project(copied_project.root, settings).run("planner-data", "validate")
    rows = list(store.read_rows(copied_project["outputs/planner-data/sft.parquet"]))
    sources = Counter(row["source"] for row in rows if row["source"].startswith("imported-"))
    assert sources["imported-request"] == 1 and sum(sources.values()) == 3
    numbers = json.loads(copied_project["metrics/planner-data.json"].read_text())
    assert numbers["imported.came"] == 7 and numbers["imported.kept"] == 1
    assert numbers["imported-samples.kept"] == 3
