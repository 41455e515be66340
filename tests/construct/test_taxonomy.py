"""The files of the taxonomy, and that mistakes in them are named."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from interloom.construct import taxonomy
from interloom.construct.english import article, bare, content_words, listed, wrong_article
from interloom.construct.taxonomy import Taxonomy
from interloom.errors import InterloomError
from interloom.pocket.knowledge import MAIN_CATEGORIES


@pytest.fixture(scope="module")
def full() -> Taxonomy:
    return taxonomy.load()


def test_size_is_the_papers(full: Taxonomy):
    assert set(full.categories) == set(MAIN_CATEGORIES) and len(full.categories) == 8
    assert 70 <= len(full.subcategories) <= 85
    assert len(full.banks) > 30
    assert len(full.templates) > 100
    assert min(len(bank.entries) for bank in full.banks.values()) >= 28


def test_every_category_has_requests_of_every_kind(full: Taxonomy):
    for category in full.categories:
        ours = [entry for entry in full.subcategories if entry.category == category]
        assert any(entry.with_picture for entry in ours), category
        assert any(entry.about_pictures for entry in ours), category


def test_templates_are_well_formed(full: Taxonomy):
    for name, source in full.templates.items():
        text = re.sub(r"\{[^{}]*\}", "X", source)
        # A single phrase may stand without a full stop, as a title does; sentences may not.
        ended = text[-1] in ".?!"
        assert ended or not re.search(r"[.?!] ", text), (name, source)
        assert not re.search(r"\s[,.;:?!]|,,|\.\.", text), (name, source)


def test_banks_keep_to_their_form(full: Taxonomy):
    """An article where every other entry of the bank has one, and none where none has."""
    for bank in full.banks.values():
        with_article = [entry for entry in bank.entries if entry.text != entry.bare]
        share = len(with_article) / len(bank.entries)
        if re.search(r"with (its|an) article(?! only)", bank.about):
            assert share == 1.0, [e.text for e in bank.entries if e not in with_article]
        if "verb phrase" in bank.about:
            assert share == 0.0, [entry.text for entry in with_article]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("    weight: 1.5\n", "    weight: 0.01\n"), r"weight: has 0\.\d+% of the prompts"),
        (("{wall}", "{wal}"), r"unknown slot \{wal\}: there is no bank 'wal'"),
        (("on a dam,", "on a dam, on a dam,"), "'on a dam' stands there twice"),
        (("on a dam,", "on an dam,"), "has a wrong article: 'an dam'"),
        (("on a dam,", "on a dam.,"), "must begin and end with a letter or digit"),
        (("category: art\n", ""), "category: a file with subcategories"),
        (("frames: {make: {thing: clay_project}}", "frames: {mak: {}}"), "unknown frames 'mak'"),
        (("frames: {make: {thing: clay_project}}", "frames: {make: {thin: wall}}"), "slot {thin}"),
        (("{subject} {wall}", "subject {wall"), "a brace without its partner"),
    ],
)
def test_a_mistake_in_a_file_is_named(tmp_path: Path, change: tuple[str, str], said: str):
    folder = tmp_path / "taxonomy"
    shutil.copytree(taxonomy.FOLDER, folder)
    path = folder / "art.yaml"
    text = path.read_text(encoding="utf-8")
    assert change[0] in text
    path.write_text(text.replace(*change, 1), encoding="utf-8")
    with pytest.raises(InterloomError, match=said) as caught:
        taxonomy.load(folder)
    assert "art.yaml" in str(caught.value)


def test_no_files(tmp_path: Path):
    with pytest.raises(InterloomError, match="no taxonomy files"):
        taxonomy.load(tmp_path)


@pytest.mark.parametrize(
    "text",
    ["a unicorn", "an umbrella", "an hour", "a European", "an 18-inch bell", "an X-ray", "a UFO"],
)
def test_articles_that_are_right(text: str):
    assert wrong_article(text) is None


@pytest.mark.parametrize("text", ["an unicorn", "a umbrella", "a hour", "an house", "a old"])
def test_articles_that_are_wrong(text: str):
    assert wrong_article(text) == text


def test_a_little_english():
    assert [article(word) for word in ("owl", "one-eyed", "useful", "heirloom")] == [
        "an",
        "a",
        "a",
        "an",
    ]
    assert bare("the Moon") == "Moon" and bare("theatre") == "theatre"
    assert listed(["a"]) == "a" and listed(["a", "b"]) == "a and b"
    assert content_words("Draw two foxes!") == content_words("Please show me the foxes.")
