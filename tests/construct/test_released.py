from __future__ import annotations

import json
from pathlib import Path

import pytest
from sample_trajectories import odd_ones, picture, trajectory

from interloom import dialogue, images
from interloom.construct import chats, critic_data, files, planner_data, released
from interloom.errors import InterloomError
from interloom.records import Critique

MADE = [trajectory("a"), *odd_ones()]


def critic_rows() -> list[dict]:
    rows = list(critic_data.decompose(trajectory("a")))
    return [row | {"semantic": 7.5, "quality": 8.0, "split": "rl"} for row in rows]


# --- execution_record.json ------------------------------------------------------------------------


@pytest.mark.parametrize("made", [t for t in MADE if t.plan], ids=lambda t: t.request.id)
def test_execution_record_round_trip(made, tmp_path: Path):
    path = released.write_execution_record(made, tmp_path / "r")
    assert released.read_execution_record(path) == made


def test_folder_of_records(tmp_path: Path):
    assert released.write_folder_of_records(MADE, tmp_path) == len(MADE) - 1
    read = {t.request.id: t for t in released.read_folder_of_records(tmp_path)}
    assert read == {t.request.id: t for t in MADE if t.plan}


def test_record_has_the_released_fields(tmp_path: Path):
    record = json.loads(released.write_execution_record(MADE[0], tmp_path).read_text())
    assert record["user_input"] == "draw a"
    assert set(record["global_context"]) == {"reasoning", "execution_plan"}
    assert len(record["steps"]) == 4, "one entry per iteration"
    wanted = {"step", "prompt", "refine_prompt", "source_img", "target_img", "success", "reasoning"}
    assert wanted < set(record["steps"][0])
    assert record["steps"][0]["source_img"] == "white.png"
    assert [entry["success"] for entry in record["steps"]] == [False, True, True, True]


def strip(value):
    """The record as others write it, without our extra keys."""
    if isinstance(value, dict):
        return {k: strip(v) for k, v in value.items() if k != released.EXTRA}
    return [strip(v) for v in value] if isinstance(value, list) else value


def test_records_of_others_are_read(tmp_path: Path):
    path = released.write_execution_record(MADE[0], tmp_path / "task-7")
    path.write_text(json.dumps(strip(json.loads(path.read_text()))))
    read = released.read_execution_record(path)
    assert read.request.id == "task-7" and read.request.text == "draw a"
    assert [len(trace.attempts) for trace in read.steps] == [2, 1, 1]
    assert [t.accepted and t.accepted.image for t in read.steps] == [
        picture(2), picture(3), picture(4),
    ]  # fmt: skip
    critique = read.steps[0].attempts[0].critique
    assert critique == Critique(success=False, refine_prompt="add part 1 of a!", reasoning="seen 1")


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda r: r.pop("user_input"), "field 'user_input': missing"),
        (lambda r: r.update(steps={}), "field 'steps': expected list, found dict"),
        (lambda r: r["steps"][1].pop("prompt"), r"steps\[1\], field 'prompt': missing"),
        (lambda r: r["steps"][1].update(success="yes"), r"steps\[1\], field 'success': expected"),
        (lambda r: r["steps"][0].update(target_img="gone.png"), r"steps\[0\], .*no image 'gone"),
        (lambda r: r["steps"][0].update(step=9), r"steps\[0\], field 'step': 9 is not in the"),
        (lambda r: r["steps"][0].update(step=3), r"steps\[1\], field 'step': 1 comes after"),
        (lambda r: r["steps"].append(4), r"steps\[4\]: expected an object, found int"),
        (lambda r: r["global_context"].pop("execution_plan"), "field 'execution_plan': missing"),
        (
            lambda r: r["global_context"]["execution_plan"][0].pop("instruction"),
            "global_context, field 'execution_plan': missing-field: instruction",
        ),
        (lambda r: r[released.EXTRA].update(kind="poem"), "field 'kind'"),
    ],
)
def test_wrong_records_are_named(change, complaint: str, tmp_path: Path):
    path = released.write_execution_record(MADE[0], tmp_path)
    record = json.loads(path.read_text())
    change(record)
    path.write_text(json.dumps(record))
    with pytest.raises(InterloomError, match=rf"execution_record\.json: .*{complaint}"):
        released.read_execution_record(path)


def test_a_kept_picture_is_whole_and_called_by_its_kind(tmp_path: Path):
    """A write that was cut off is no picture; JPEG, as Gemini makes it, is not called PNG."""
    photo = images.to_jpeg(images.from_bytes(picture(1)))
    name = files.save_image(tmp_path, photo)
    assert name.endswith(".jpeg") and (tmp_path / name).read_bytes() == photo
    (tmp_path / name).rename(tmp_path / f"{name}.part")
    (tmp_path / f"{name}.part").write_bytes(photo[:50])
    assert files.save_image(tmp_path, photo) == name
    assert [one.read_bytes() for one in (tmp_path / "images").iterdir()] == [photo]


def test_damaged_image_is_named(tmp_path: Path):
    path = released.write_execution_record(MADE[0], tmp_path)
    for image in (tmp_path / "images").iterdir():
        image.write_bytes(image.read_bytes()[:60])
    with pytest.raises(InterloomError, match=r"steps\[0\], field 'target_img', image"):
        released.read_execution_record(path)


# --- chats ----------------------------------------------------------------------------------------


def chat_samples(agent: chats.Agent, style: dialogue.Style) -> list[chats.ChatSample]:
    if agent == "critic":
        return [chats.chat_sample(row, agent, style) for row in critic_rows()]
    made = planner_data.samples(trajectory("a"), 9, 0)
    return [chats.chat_sample(planner_data.planner_row(*one), agent, style) for one in made]


@pytest.mark.parametrize("style", ["short", "full"])
@pytest.mark.parametrize("agent", ["planner", "critic"])
def test_chats_round_trip(agent: chats.Agent, style: dialogue.Style, tmp_path: Path):
    samples = chat_samples(agent, style)
    path = tmp_path / f"{agent}_sft.json"
    assert chats.write_chats(samples, path) == len(samples)
    assert list(chats.read_chats(path, agent)) == samples


def test_chat_conversations_equal_ours(tmp_path: Path):
    for row, sample in zip(critic_rows(), chat_samples("critic", "short"), strict=True):
        ours, theirs = critic_data.to_conversation(row, "short"), sample.to_conversation()
        assert theirs["prompt"] == ours["prompt"] and theirs["completion"] == ours["completion"]
        assert [i.tobytes() for i in theirs["images"]] == [i.tobytes() for i in ours["images"]]


def test_sharegpt_form_and_python_answers_are_read(tmp_path: Path):
    (tmp_path / "a.png").write_bytes(picture(1))
    answer = "{'previous_step_success': True, 'refine_prompt': 'x'}"
    record = {
        "system": "You judge.",
        "conversations": [
            {"from": "human", "value": "<image> ok?"},
            {"from": "gpt", "value": f"<think>t</think><answer>{answer}</answer>"},
        ],
        "images": ["a.png"],
    }
    path = tmp_path / "critic_sft.json"
    path.write_text(json.dumps([record]))
    (sample,) = chats.read_chats(path, "critic")
    assert [role for role, _ in sample.turns] == ["system", "user", "assistant"]
    assert sample.images == (picture(1),)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda r: r.pop("messages"), "field 'conversations': missing"),
        (lambda r: r["messages"].pop(), "the last turn is not the assistant's"),
        (lambda r: r["messages"][-1].update(content="yes"), "cannot be used: missing-tag"),
        (lambda r: r["messages"][0].update(role="narrator"), "unknown role 'narrator'"),
        (lambda r: r["images"].pop(), "1 images for 2 marks"),
        (lambda r: r["images"].__setitem__(0, "gone.png"), "field 'images': no image 'gone.png'"),
        (lambda r: r.update(images="x"), "field 'images': expected list, found str"),
    ],
)
def test_wrong_chats_are_named(change, complaint: str, tmp_path: Path):
    path = tmp_path / "critic_sft.json"
    chats.write_chats(chat_samples("critic", "short"), path)
    records = json.loads(path.read_text())
    change(records[1])
    path.write_text(json.dumps(records))
    with pytest.raises(InterloomError, match=rf"critic_sft\.json: record 1.*{complaint}"):
        list(chats.read_chats(path, "critic"))


# --- critic_rl.jsonl ------------------------------------------------------------------------------


def test_critic_rl_round_trip(tmp_path: Path):
    path = tmp_path / "critic_rl.jsonl"
    assert released.write_critic_rl(critic_rows(), path) == 4
    assert list(released.read_critic_rl(path)) == critic_rows()
    first = json.loads(path.read_text().splitlines()[0])
    assert first["origin_image_path"] == "white.png"
    assert first["evaluation"] == {"semantics": 7.5, "quality": 8.0, "success": False}


def test_critic_rl_of_others_is_read(tmp_path: Path):
    (tmp_path / "x.png").write_bytes(picture(1))
    (tmp_path / "white.png").write_bytes(picture(2))
    record = {
        "origin_prompt": "p", "previous_prompt": "q", "origin_image_path": "white.png",
        "edited_image_path": "x.png",
        "evaluation": {"semantics": 3, "quality": 9, "success": False},
    }  # fmt: skip
    path = tmp_path / "critic_rl.jsonl"
    path.write_text(json.dumps(record) + "\n\n")
    (row,) = released.read_critic_rl(path)
    assert row["before"] is None and row["after"] == picture(1)
    assert (row["prompt"], row["used_prompt"], row["semantic"]) == ("p", "q", 3.0)
    assert set(row) == set(critic_data.critic_schema().names)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda r: r.pop("origin_prompt"), "field 'origin_prompt': missing"),
        (lambda r: r.pop("rewritten_prompt"), "field 'rewritten_prompt': missing"),
        (lambda r: r["evaluation"].update(semantics=11), "evaluation, field 'semantics': 11.0 is"),
        (lambda r: r["evaluation"].update(success=1), "field 'success': expected bool, found int"),
        (lambda r: r.update(edited_image_path="white.png"), "a judged image is missing"),
        (lambda r: r.update(edited_image_path="../gone.png"), "no image '../gone.png'"),
    ],
)
def test_wrong_critic_rl_is_named(change, complaint: str, tmp_path: Path):
    path = tmp_path / "critic_rl.jsonl"
    released.write_critic_rl(critic_rows(), path)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    change(lines[2])
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(InterloomError, match=rf"critic_rl\.jsonl: record 2.*{complaint}"):
        list(released.read_critic_rl(path))


@pytest.mark.parametrize("text", ["", "{", "[1"])
def test_files_that_are_no_json_are_named(text: str, tmp_path: Path):
    path = tmp_path / "planner_sft.json"
    path.write_text(text)
    with pytest.raises(InterloomError, match=r"planner_sft\.json: not JSON"):
        list(chats.read_chats(path, "planner"))
    with pytest.raises(InterloomError, match="cannot be read"):
        list(chats.read_chats(tmp_path / "none.json", "planner"))
