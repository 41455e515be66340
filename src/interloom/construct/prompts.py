"""Requests: unique, each with its category, sub-category, template and slot values (§3.3, stage 1).

The top-down scheme is the paper's: main category → sub-category → vocabulary → template. It has
two editions: the full taxonomy (``taxonomy.py``, ``taxonomy_prompts.py``), and what the pocket
world can draw, which is a list of writers with shares (``pocket_prompts.py``).
"""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from interloom import cast
from interloom.backends.pocket import on_evaluation_side
from interloom.construct import accounts, pocket_prompts, store
from interloom.construct.coverage import Coverage
from interloom.construct.drafts import Draft, Writer, quotas
from interloom.construct.yields import Yield
from interloom.errors import InterloomError
from interloom.pocket.knowledge import MAIN_CATEGORIES
from interloom.pocket.language import MeaningError
from interloom.pocket.reasoning import RuleError
from interloom.records import Request
from interloom.seeding import derive_seed

if TYPE_CHECKING:
    import pyarrow as pa

    from interloom.construct.taxonomy import Taxonomy
    from interloom.runner import StageRun
    from interloom.settings.file import Settings

MOST_TRIES = 60
"""Drafts per wanted request before a writer counts as exhausted."""
MOST_IN_VAIN = 3000
"""Drafts in a row that were all turned down: so too."""


def prompt_schema() -> pa.Schema:
    """One row per request; ``slots`` is JSON."""
    import pyarrow as pa

    return pa.schema(
        {
            "id": pa.string(),
            "text": pa.string(),
            "kind": pa.string(),
            "category": pa.string(),
            "subcategory": pa.string(),
            "template": pa.string(),
            "slots": pa.string(),
            "images": pa.list_(pa.binary()),
            "captions": pa.list_(pa.string()),
        }
    )


def drafts(
    writers: Sequence[tuple[Writer, float]],
    count: int,
    seed: int,
    held_out: Callable[[str, bytes | None], bool],
    lost: Counter[str],
) -> list[Draft]:
    """``count`` drafts in mixed order, no two alike; ``lost`` counts what was turned down and why.

    Raises:
        InterloomError: a writer has no more to say.
    """
    seen: set[tuple[str, tuple[bytes, ...]]] = set()
    found: list[Draft] = []
    for (writer, _), wanted in zip(writers, quotas([s for _, s in writers], count), strict=True):
        rng = random.Random(derive_seed(seed, "prompts", writer.__name__))
        kept = in_vain = 0
        for _ in range(MOST_TRIES * wanted):
            if kept == wanted or in_vain == MOST_IN_VAIN:
                break
            in_vain += 1
            try:
                draft = writer(rng)
            except (MeaningError, RuleError):
                lost["does-not-fit"] += 1
                continue
            key = (" ".join(draft.text.lower().split()), draft.pictures)
            if key in seen:
                lost["duplicate"] += 1
            elif draft.kind != "text_response" and held_out(
                draft.text, draft.pictures[-1] if draft.pictures else None
            ):
                lost["held-out"] += 1
            else:
                seen.add(key)
                found.append(draft)
                kept, in_vain = kept + 1, 0
        if kept < wanted:
            raise InterloomError(
                f"prompts.count = {count}: only {kept} different requests of the sort "
                f"{writer.__name__!r} were found, {wanted} are wanted; lower the count"
            )
    random.Random(derive_seed(seed, "prompts", "order")).shuffle(found)
    return found


def rows(made: Iterable[Draft]) -> Iterator[dict[str, Any]]:
    """Drafts as rows with their ids."""
    for number, draft in enumerate(made):
        request = Request(
            id=f"p{number:05d}",
            text=draft.text,
            images=draft.pictures,
            captions=draft.captions,
            kind=draft.kind,
            category=draft.category,
            subcategory=draft.subcategory,
        )
        yield store.request_row(request) | {
            "template": draft.template,
            "slots": json.dumps(draft.slots, sort_keys=True),
        }


class Tally:
    """What is counted while drafts pass by; they need not be held for it."""

    def __init__(self) -> None:
        self.categories: Counter[str] = Counter()
        self.kinds: Counter[str] = Counter()
        self.coverage = Coverage()

    def counted(self, made: Iterable[Draft]) -> Iterator[Draft]:
        for draft in made:
            self.categories[draft.category] += 1
            self.kinds[draft.kind] += 1
            self.coverage.add(draft.category, draft.subcategory, draft.template, draft.kind)
            yield draft

    @property
    def count(self) -> int:
        return self.kinds.total()

    def numbers(self) -> dict[str, float | int | str]:
        return {
            **{f"category.{name}": n for name, n in sorted(self.categories.items())},
            **{f"kind.{name}": n for name, n in sorted(self.kinds.items())},
            "subcategories": len(self.coverage.entries),
            "templates": len(self.coverage.templates),
        }


def run(settings: Settings, stage: StageRun) -> None:
    """Body of the stage ``prompts``."""
    options = settings.prompts
    lost: Counter[str] = Counter()
    tally = Tally()
    yields: list[Yield] = []
    facts = {"format": "prompts/1", "seed": settings.seed, "edition": options.edition}
    made: Iterable[Draft]
    if options.edition == "pocket":
        made = drafts(pocket_prompts.SHARES, options.count, settings.seed, on_evaluation_side, lost)
    else:
        made = _from_taxonomy(settings, stage, yields, lost)
    with stage.progress(options.count, "writing requests") as bar:

        def counted() -> Iterator[Draft]:
            for draft in tally.counted(made):
                bar.advance()
                yield draft

        store.write_table(stage.out("prompts"), rows(counted()), prompt_schema(), facts)
    missing = sorted(set(MAIN_CATEGORIES) - set(tally.categories))
    if missing and options.count >= 100:
        raise InterloomError(f"prompts: no request of {', '.join(missing)}")
    yields.append(Yield("drafts", tally.count + sum(lost.values()), tally.count, dict(lost)))
    accounts.write(stage, yields, tally.numbers())
    table = stage.work / "coverage.txt"
    table.write_text(tally.coverage.table() + "\n", encoding="utf-8")
    stage.artifact(table)


def _from_taxonomy(
    settings: Settings, stage: StageRun, yields: list[Yield], lost: Counter[str]
) -> Iterator[Draft]:
    """Drafts of the full taxonomy, its banks extended by the teacher if that is wanted."""
    from interloom.construct import given_pictures, taxonomy, taxonomy_prompts

    options = settings.prompts
    full = taxonomy.load()
    if options.expand:
        full = _expanded(full, settings, stage, yields)
    given = given_pictures.find(Path(options.pictures)) if options.pictures else []
    if not given:
        stage.log("prompts.pictures names no folder: all requests are text only")
    return taxonomy_prompts.drafts(
        full, options.count, settings.seed, lost, given, options.picture_share
    )


def _expanded(full: Taxonomy, settings: Settings, stage: StageRun, yields: list[Yield]) -> Taxonomy:
    from interloom.construct import vocabulary

    teacher = settings.teacher
    if teacher.backend == "pocket":
        raise InterloomError(
            f"prompts.expand = {settings.prompts.expand}: teacher.backend = pocket knows no words "
            "beyond its world; choose another teacher, or 0"
        )
    remotes = cast.remotes(settings.remote, stage)
    chat = cast.chat(teacher.backend, teacher.model, teacher, remotes)
    growth = vocabulary.grow(full, chat, settings.prompts.expand)
    yields.append(Yield("vocabulary", growth.offered, growth.taken, dict(growth.left_out)))
    stage.log(
        f"{teacher.model} offered {growth.offered} entries for the banks, {growth.taken} were "
        f"taken; {growth.unanswered} banks got no answer"
    )
    return growth.taxonomy
