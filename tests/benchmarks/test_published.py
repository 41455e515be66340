"""Published files: every form that they come in, and what is wrong with one."""

from __future__ import annotations

from pathlib import Path

import pytest
from model_server import picture

from interloom.benchmarks import published
from interloom.errors import InterloomError


@pytest.mark.parametrize(
    "text", ['[{"a": 1}, {"a": 2}]', '{"a": 1}\n{"a": 2}\n', '{"a": 1}\n\n{"a": 2}']
)
def test_lists_and_lines_are_read(tmp_path: Path, text: str):
    file = tmp_path / "x.json"
    file.write_text(text)
    assert [record for _, record in published.records(file)] == [{"a": 1}, {"a": 2}]


def test_the_files_of_a_folder_are_read_in_order(tmp_path: Path):
    for name in ("2.jsonl", "1.json", "read.me"):
        (tmp_path / name).write_text(f'{{"a": "{name}"}}')
    assert [record["a"] for _, record in published.records(tmp_path)] == ["1.json", "2.jsonl"]


def test_what_cannot_be_read_is_named(tmp_path: Path):
    file = tmp_path / "x.json"
    for text, said in (("[1]", "record 1: int instead"), ('{"a"', "not JSON"), ("", "not JSON")):
        file.write_text(text)
        with pytest.raises(InterloomError, match=said) as error:
            list(published.records(file))
        assert str(file) in str(error.value)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InterloomError, match="no file of records"):
        list(published.records(tmp_path / "empty"))


def test_a_field_is_there_and_of_its_type():
    assert published.field({"a": 1}, "a", "here", int) == 1
    for record, said in (({}, "missing"), ({"a": None}, "missing"), ({"a": "1"}, "is str"),
                         ({"a": True}, "is bool")):  # fmt: skip
        with pytest.raises(InterloomError, match=f"here: field 'a' (is )?{said.split()[-1]}"):
            published.field(record, "a", "here", int)


def test_pictures_are_files_or_bytes(tmp_path: Path):
    (tmp_path / "a.png").write_bytes(picture())
    for value in ("a.png", {"path": "a.png", "bytes": None}, {"bytes": picture()}, picture()):
        assert published.picture(value, tmp_path, "here") == picture()
    for value, said in (("b.png", "b.png is not there"), (b"no picture", "here: 10 bytes")):
        with pytest.raises(InterloomError, match=said):
            published.picture(value, tmp_path, "here")


def test_a_copy_that_is_not_there(tmp_path: Path):
    assert published.located(str(tmp_path)) == tmp_path
    with pytest.raises(InterloomError, match="no such file or folder"):
        published.located(str(tmp_path / "ueval"))


def test_a_hub_that_does_not_answer_is_one_error(monkeypatch: pytest.MonkeyPatch):
    import huggingface_hub.constants as hub

    monkeypatch.setattr(hub, "HF_HUB_OFFLINE", True)
    with pytest.raises(InterloomError, match="hub:no/where: the hub does not give it"):
        published.located("hub:no/where")
