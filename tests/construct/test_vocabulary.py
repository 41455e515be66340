"""The teacher adds to the banks, over Gemini's wire format; what does not fit is left out."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest
from data_project import new_project
from model_server import MODEL, SETTINGS, Asked, Said, gemini, remotes, remotes_settings, serving

from interloom.backends.gemini import GeminiChat
from interloom.construct import store, taxonomy, taxonomy_prompts, vocabulary
from interloom.construct.taxonomy import Taxonomy
from interloom.errors import InterloomError
from interloom.runner import run_stage
from interloom.stages import find_stage


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GEMINI_API_KEY", "key-1")


@pytest.fixture(scope="module")
def full() -> Taxonomy:
    return taxonomy.load()


def offer(asked: Asked) -> Said:
    """Per bank: two known entries turned into new ones, one as it is, and one that is no phrase."""
    question = asked.json["contents"][0]["parts"][0]["text"]
    bank = re.findall(r'for the bank "(\w+)"', question)[0]
    if bank == "wall":
        return gemini([], "SAFETY")
    known = re.findall(r"^- (.+)$", question, re.MULTILINE)
    return gemini({"entries": [f"{known[0]} again", f"{known[1]} again", known[2], "No. Thanks!"]})


def test_fitting_entries_are_taken(full: Taxonomy):
    left_out: Counter[str] = Counter()
    offered = [
        "a wombat", "An ocelot", "an ocelot", "a ocelot", "ocelots", "a quokka.", "the quokka",
        "a very small quokka with an extraordinarily long name", "a quokka", "an ocelot",
    ]  # fmt: skip
    assert vocabulary.fitting(full.banks["animal"], offered, left_out) == ["an ocelot", "a quokka"]
    assert left_out == {"known": 2, "malformed": 2, "first-word": 3, "too-long": 1}
    tasks = vocabulary.fitting(full.banks["garden_task"], ["a rake", "rake leaves"], left_out)
    assert tasks == ["rake leaves"] and left_out["article"] == 1
    styles = ["as a Moche pot", "like a Moche pot"]
    assert vocabulary.fitting(full.banks["style"], styles, left_out) == ["as a Moche pot"]


def test_every_reviewed_entry_fits_its_own_bank(full: Taxonomy):
    for bank in full.banks.values():
        shape = vocabulary.Shape.of(bank)
        assert [e.text for e in bank.entries if shape.fault(e.text)] == [], bank.name


def test_banks_grow_and_the_answers_are_kept(full: Taxonomy, tmp_path: Path):
    counted = [bank for bank in full.banks.values() if bank.entries[0].count]
    with serving(offer) as server:
        for _ in range(2):
            backend = remotes(tmp_path, "gemini", server.url).open("gemini")
            chat = GeminiChat(backend, MODEL, SETTINGS.teacher)
            growth = vocabulary.grow(full, chat, 1)
            # The second time only what was refused is asked again.
            assert growth.unanswered == 1
        assert len(server.asked) == len(full.banks) - len(counted) + 1
    answered = len(full.banks) - len(counted) - 1
    assert growth.offered == 4 * answered
    assert growth.offered == growth.taken + growth.left_out.total()
    assert growth.left_out["known"] == growth.left_out["malformed"] == answered
    grown = growth.taxonomy.banks
    assert grown["animal"].entries[-1].text == f"{full.banks['animal'].entries[0].text} again"
    assert grown["wall"] == full.banks["wall"]
    assert all(grown[bank.name] == bank for bank in counted)
    assert max(len(grown[n].entries) - len(full.banks[n].entries) for n in grown) == 1
    texts = [d.text for d in taxonomy_prompts.drafts(growth.taxonomy, 3000, 0, Counter())]
    assert any(" again" in text for text in texts)


def test_the_stage_with_a_teacher(full: Taxonomy, tmp_path: Path):
    project = new_project(tmp_path)
    settings = project.settings
    options = {"edition": "taxonomy", "count": 800, "expand": 3}
    teacher = {"backend": "gemini", "model": MODEL}
    with serving(offer) as server:
        settings = settings.model_copy(
            update={
                "prompts": settings.prompts.model_copy(update=options),
                "teacher": settings.teacher.model_copy(update=teacher),
                "remote": remotes_settings("gemini", server.url),
            }
        )
        run_stage(find_stage("prompts"), settings, tmp_path, track=False)
    rows = list(store.read_rows(tmp_path / "outputs/prompts.parquet"))
    assert len(rows) == len({row["text"] for row in rows}) == 800
    assert {row["category"] for row in rows} == set(full.categories)
    assert any(" again" in row["text"] for row in rows)
    metrics = (tmp_path / "metrics/prompts.json").read_text()
    assert '"vocabulary.kept"' in metrics and '"subcategories": 81' in metrics


def test_the_pocket_teacher_knows_no_words(tmp_path: Path):
    project = new_project(tmp_path)
    options = {"edition": "taxonomy", "count": 100, "expand": 3}
    prompts = project.settings.prompts.model_copy(update=options)
    settings = project.settings.model_copy(update={"prompts": prompts})
    with pytest.raises(InterloomError, match=r"prompts\.expand = 3: .* choose another teacher"):
        run_stage(find_stage("prompts"), settings, tmp_path, track=False)
