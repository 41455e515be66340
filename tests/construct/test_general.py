from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from interloom.construct import general
from interloom.errors import InterloomError


def test_pocket_questions_are_repeatable_texts_that_are_answered_between_tags():
    rows = list(general.rows("pocket", 200, seed=3))
    assert rows == list(general.rows("pocket", 200, seed=3))
    assert rows != list(general.rows("pocket", 200, seed=4))
    assert len({row["id"] for row in rows}) == 200
    for row in rows:
        assert "<image>" not in row["question"]
        answer = re.fullmatch("<think>.+</think><answer>(.+)</answer>", row["answer"])
        assert answer and json.loads(answer[1])


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
