"""40,000 requests of the full taxonomy: unique, spread as wanted, and English."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from PIL import Image

from interloom.backends.pocket import on_evaluation_side
from interloom.construct import given_pictures, store, taxonomy, taxonomy_prompts
from interloom.construct.coverage import Coverage
from interloom.construct.drafts import Draft
from interloom.construct.english import content_words, wrong_article
from interloom.construct.prompts import prompt_schema, rows
from interloom.construct.taxonomy import LEAST_SHARE
from interloom.errors import InterloomError

COUNT = 40_000
FEW = 1500


class Written(NamedTuple):
    drafts: list[Draft]
    lost: Counter[str]


def write(count: int, seed: int, **more: object) -> list[Draft]:
    full = taxonomy.load()
    return list(taxonomy_prompts.drafts(full, count, seed, Counter(), **more))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def written() -> Iterator[Written]:
    clock, processor = time.perf_counter(), time.process_time()
    lost: Counter[str] = Counter()
    made = list(taxonomy_prompts.drafts(taxonomy.load(), COUNT, 42, lost))
    clock, processor = time.perf_counter() - clock, time.process_time() - processor
    print(f"\n{COUNT} requests: {clock:.1f} s on the clock, {processor:.1f} s of processor time")
    # Generous, as the machine may be busy: a slip to quadratic time is what this finds.
    assert processor < 60
    yield Written(made, lost)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    for number in range(60):
        Image.new("RGB", (16, 16), (number, 90, 200)).save(folder / f"{number:02}.png")
        if number % 4:
            (folder / f"{number:02}.txt").write_text(f"a plain surface,\n number {number}\n")
    (folder / "notes.md").write_text("no picture")
    (folder / "copy.png").write_bytes((folder / "00.png").read_bytes())
    return folder


def test_they_are_unique(written: Written):
    texts = {draft.text for draft in written.drafts}
    assert len(written.drafts) == len(texts) == COUNT
    assert len({text.casefold() for text in texts}) == COUNT
    # Not even the same words in another order, or with other numbers.
    assert len({tuple(content_words(text)) for text in texts}) == COUNT
    assert written.lost["asked-in-other-words"] > 0 and written.lost["in-another-dress"] > 0


def test_they_are_spread_over_the_sub_categories(written: Written):
    coverage = Coverage()
    for draft in written.drafts:
        coverage.add(draft.category, draft.subcategory, draft.template, draft.kind)
    lines = coverage.lines()
    assert len(lines) == len(taxonomy.load().subcategories)
    assert min(line.share for line in lines) >= LEAST_SHARE
    assert min(line.templates for line in lines) >= 4
    assert sum(line.count for line in lines) == COUNT
    table = coverage.table()
    assert len(table.splitlines()) == len(lines) + 2
    assert "40000" in table.splitlines()[-1]


def test_no_slot_is_left_open(written: Written):
    for draft in written.drafts:
        assert not re.search(r"[{}|\[\]]|\.[2-9]\b", draft.text), draft.text
        assert draft.slots and draft.template and draft.kind == "create" and not draft.pictures
        for value in draft.slots.values():
            for text in value if isinstance(value, list) else [value]:
                # "half lynx and half otter": without its article
                said = str(text).split(" ", 1)[-1].casefold()
                assert isinstance(text, int) or said in draft.text.casefold(), (text, draft.text)


def test_they_are_english(written: Written):
    # Repetitions and "a a" come from two slots that do not go together.
    doubled = re.compile(r"\b(\w+) \1\b", re.IGNORECASE)
    spaced = re.compile(r"  |\s[,.;:?!]|[,;:][,.;:?!]|\.\.|^\s|\s$")
    begun = re.compile(r"(?:^|[.?!] )[a-z]")
    for draft in written.drafts:
        text = draft.text
        assert wrong_article(text) is None, (wrong_article(text), text)
        assert not doubled.search(text), (doubled.search(text), text)
        assert not spaced.search(text), text
        assert not begun.search(text), text
        assert text.count('"') == 0 and text[-1] not in ",;:"
        if re.search(r"[.?!] ", text):
            assert text[-1] in ".?!", text


def test_values_of_a_request_share_no_word(written: Written):
    for draft in written.drafts:
        things = [
            draft.slots[key] for key in ("object", "object.2", "object.3") if key in draft.slots
        ]
        words = [word for thing in things for word in content_words(thing)]
        assert len(words) == len(set(words)), draft.text


def test_none_is_of_the_pocket_benchmarks(written: Written):
    assert not any(on_evaluation_side(draft.text, None) for draft in written.drafts[:300])


def test_same_seed_same_requests_and_another_seed_others():
    first, again, other = write(FEW, 3), write(FEW, 3), write(FEW, 4)
    assert first == again
    assert len({d.text for d in first} & {d.text for d in other}) < FEW / 5


def test_requests_with_pictures(pictures: Path, tmp_path: Path):
    given = given_pictures.find(pictures)
    assert len(given) == 60
    assert [picture.caption for picture in given[:2]] == ["", "a plain surface, number 1"]
    made = write(FEW, 5, given=given, share=0.3)
    kinds = Counter(draft.kind for draft in made)
    assert kinds["continuation"] + kinds["text_response"] == round(0.3 * FEW)
    assert kinds["text_response"] > 50
    assert len({(d.text, d.pictures) for d in made}) == FEW
    assert {d.category for d in made if d.pictures} == {d.category for d in made}
    for draft in made:
        number = {"create": 0, "continuation": 1}.get(draft.kind)
        names = draft.slots.get("pictures", [])
        assert len(draft.pictures) == len(names) == len(set(names))
        assert len(names) in (2, 3, 4) if number is None else len(names) == number
        assert len(draft.captions) in (0, len(names))
    assert {bool(d.captions) for d in made if d.pictures} == {True, False}
    path = tmp_path / "prompts.parquet"
    store.write_table(path, rows(made), prompt_schema(), {})
    read = [store.request_from(row) for row in store.read_rows(path)]
    assert [request.images for request in read] == [draft.pictures for draft in made]


def test_a_share_without_pictures_is_text_only():
    assert {draft.kind for draft in write(200, 6, share=0.5)} == {"create"}


def test_too_many_for_a_sub_category_are_refused():
    full = taxonomy.load()
    small = full._replace(subcategories=full.subcategories[-2:])
    with pytest.raises(InterloomError, match=r"has not \d+ different requests; lower the count"):
        list(taxonomy_prompts.drafts(small, 20_000, 0, Counter()))


def test_folders_that_give_no_pictures(tmp_path: Path):
    with pytest.raises(InterloomError, match="no such folder"):
        given_pictures.find(tmp_path / "nothing")
    with pytest.raises(InterloomError, match="no pictures in it"):
        given_pictures.find(tmp_path)
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    with pytest.raises(InterloomError, match=r"broken\.jpg"):
        given_pictures.find(tmp_path)
