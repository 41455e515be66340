from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from interloom import images
from interloom.construct import general
from interloom.errors import InterloomError


def test_pocket_questions_are_repeatable_and_answered_between_tags():
    rows = list(general.rows("pocket", 200, seed=3))
    assert rows == list(general.rows("pocket", 200, seed=3))
    assert rows != list(general.rows("pocket", 200, seed=4))
    assert len({row["id"] for row in rows}) == 200
    shown = [row["question"].count("<image>") for row in rows]
    assert shown == [len(row["images"]) for row in rows] and 0 < sum(map(bool, shown)) < 100
    for row in rows:
        answer = re.fullmatch("<think>.+</think><answer>(.+)</answer>", row["answer"])
        assert answer and json.loads(answer[1])


def test_a_question_is_asked_with_its_pictures():
    row = next(row for row in general.rows("pocket", 200, seed=3) if row["images"])
    said = general.to_conversation(row)
    parts = [part for part in said["prompt"][0]["content"] if part["type"] == "image"]
    assert len(parts) == len(said["images"]) == len(row["images"])
    assert {image.size for image in said["images"]} == {(96, 96)}


def test_pictures_of_a_file_lie_beside_it(tmp_path: Path):
    path = tmp_path / "general.jsonl"
    (tmp_path / "a.png").write_bytes(images.white(8, 8))
    said = {"question": "<image>what is it", "answer": "nothing", "images": ["a.png"]}
    path.write_text(json.dumps(said))
    (row,) = general.rows(str(path), 9, seed=1)
    assert row["images"] == [images.white(8, 8)]


def test_questions_come_from_a_file_up_to_the_wanted_number(tmp_path: Path):
    path = tmp_path / "general.jsonl"
    said = [{"question": f"what is {n}", "answer": str(n), "source": "a book"} for n in range(3)]
    path.write_text("\n".join(map(json.dumps, said)))
    assert [row["answer"] for row in general.rows(str(path), 2, seed=1)] == ["0", "1"]
    assert [row["answer"] for row in general.rows(str(path), 9, seed=1)] == ["0", "1", "2"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"question": "q"}', "record 0, field 'answer': missing"),
        ('{"question": 3, "answer": "a"}', "record 0, field 'question': expected str, found int"),
        ("[]\n", "record 0: expected an object"),
        ('{"question": "<image>?", "answer": "a"}', "'question': 1 times <image> for 0 images"),
        (
            '{"question": "<image>?", "answer": "a", "images": ["b.png"]}',
            "field 'images': no image 'b.png' beside the file",
        ),
        ('{"question": ', "record 0: not JSON"),
    ],
)
def test_a_bad_file_is_named_with_record_and_field(tmp_path: Path, text: str, said: str):
    path = tmp_path / "general.jsonl"
    path.write_text(text)
    with pytest.raises(InterloomError, match=re.escape(said)) as caught:
        list(general.rows(str(path), 9, seed=1))
    assert str(path) in str(caught.value)
    with pytest.raises(InterloomError, match="cannot be read"):
        list(general.rows(str(tmp_path / "none.jsonl"), 9, seed=1))
