from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image
from pydantic import TypeAdapter

from interloom.pocket import report
from interloom.pocket.measurements import Report

DOCS = Path(__file__).resolve().parents[2] / "docs" / "pocket"


@pytest.fixture(scope="module")
def measured() -> list[Report]:
    """The figures of the shipped generators, read strictly: one key per property."""
    found = TypeAdapter(list[Report]).validate_json((DOCS / "report.json").read_text())
    assert {key for one in json.loads((DOCS / "report.json").read_text()) for key in one} == set(
        Report.__dataclass_fields__
    )
    return found


def test_the_docs_say_what_was_measured(measured):
    assert (DOCS / "report.md").read_text() == report.to_markdown(measured)


def test_every_key_is_explained():
    for key in Report.__dataclass_fields__:
        assert f"``{key}``" in (report.__doc__ or ""), key


def test_tables_have_a_column_per_generator(measured):
    one, two = measured
    text = report.to_markdown([one, replace(two, composed={"9": one.one_shot["1"]})])
    assert f"| | {one.generator} | {two.generator} |" in text
    assert f"| 5 | {one.composed['5']} ({one.composed['5'].n}) | – |" in text
    assert "3 sampling seeds" in text and "one training seed" in text


def test_all_three_files_are_written(measured, tmp_path):
    report.write(measured, tmp_path / "new")
    assert json.loads((tmp_path / "new/report.json").read_text()) == json.loads(
        (DOCS / "report.json").read_text()
    )
    assert (tmp_path / "new/report.md").read_text() == report.to_markdown(measured)
    with Image.open(tmp_path / "new/report.png") as image:
        assert image.width > 1000
