"""Requests: unique, each with its category, sub-category, template and slot values (§3.3, stage 1).

The top-down scheme is the paper's: main category → sub-category → vocabulary → template. An edition
is a list of writers with shares; ``pocket_prompts.py`` is the edition of the pocket world.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from interloom.backends.pocket import on_evaluation_side
from interloom.construct import pocket_prompts, store
from interloom.construct.pocket_prompts import Draft, Writer
from interloom.construct.yields import Yield, write_csv, write_metrics
from interloom.errors import InterloomError
from interloom.pocket.knowledge import MAIN_CATEGORIES, RuleError
from interloom.pocket.language import MeaningError
from interloom.records import Request
from interloom.seeding import derive_seed

if TYPE_CHECKING:
    import pyarrow as pa

    from interloom.runner import StageRun
    from interloom.settings import Settings

MOST_TRIES = 60
"""Drafts per wanted request before a writer counts as exhausted."""


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


def quotas(shares: Sequence[float], count: int) -> list[int]:
    """How many of ``count`` each share gets: rounded down, the largest rests rounded up.

    >>> quotas([0.5, 0.3, 0.2], 9)
    [4, 3, 2]
    """
    exact = [share * count / sum(shares) for share in shares]
    numbers = [int(value) for value in exact]
    by_rest = sorted(range(len(exact)), key=lambda i: numbers[i] - exact[i])
    for place in by_rest[: count - sum(numbers)]:
        numbers[place] += 1
    return numbers


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
        kept = 0
        for _ in range(MOST_TRIES * wanted):
            if kept == wanted:
                break
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
                kept += 1
        if kept < wanted:
            raise InterloomError(
                f"prompts.count = {count}: only {kept} different requests of the sort "
                f"{writer.__name__!r} were found, {wanted} are wanted; lower the count"
            )
    random.Random(derive_seed(seed, "prompts", "order")).shuffle(found)
    return found


def rows(made: Sequence[Draft]) -> Iterator[dict[str, Any]]:
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


def run(settings: Settings, stage: StageRun) -> None:
    """Body of the stage ``prompts``."""
    if settings.prompts.edition != "pocket":
        raise InterloomError(
            f"prompts.edition = {settings.prompts.edition!r}: this version writes pocket prompts"
        )
    lost: Counter[str] = Counter()
    count = settings.prompts.count
    made = drafts(pocket_prompts.SHARES, count, settings.seed, on_evaluation_side, lost)
    missing = sorted(set(MAIN_CATEGORIES) - {draft.category for draft in made})
    if missing and count >= 100:
        raise InterloomError(f"prompts: no request of {', '.join(missing)}")
    facts = {"format": "prompts/1", "seed": settings.seed, "edition": "pocket"}
    store.write_table(stage.out("prompts"), rows(made), prompt_schema(), facts)
    came = len(made) + sum(lost.values())
    numbers: dict[str, float | int | str] = {
        f"category.{name}": n for name, n in sorted(Counter(d.category for d in made).items())
    }
    numbers |= {f"kind.{n}": c for n, c in sorted(Counter(d.kind for d in made).items())}
    numbers |= {
        "subcategories": len({(d.category, d.subcategory) for d in made}),
        "templates": len({d.template for d in made}),
    }
    yields = [Yield("drafts", came, len(made), dict(lost))]
    write_metrics(stage.out("metrics"), yields, numbers)
    write_csv(stage.out("yield"), "prompts", yields)
