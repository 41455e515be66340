"""Requests from the full taxonomy: unique, no near-duplicates, streamed.

Two rules keep near-duplicates out. Both look a prompt up in a set, so that 40,000 prompts take
seconds, and both are exact where MinHash would guess:

1. *The same thing asked in other words*: prompts with the same content words (function words, words
   of asking such as "show" or "picture", and numbers left out) are one prompt. "How do I tie a
   bowline?" and "Show in five pictures how to tie a bowline." do not stand side by side; nor do a
   fox who meets a crow and a crow who meets a fox.
2. *The same thing in another dress*: of the prompts of a sub-category with the same values in all
   slots but the modifiers (styles, framings), at most ``MOST_ALIKE`` are kept.

Requests about different pictures are different requests.
"""

from __future__ import annotations

import hashlib
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from interloom.construct.drafts import Draft, quotas
from interloom.construct.english import NUMBER_WORDS, content_words, listed, with_capitals
from interloom.construct.given_pictures import Given
from interloom.construct.taxonomy import NUMBER, Bank, Entry, Slot, Subcategory, Taxonomy, Template
from interloom.errors import InterloomError
from interloom.seeding import derive_seed

MOST_ALIKE = 4
"""Prompts about the same thing in different dress."""
MOST_TRIES = 2000
"""Drafts turned down in a row before a sub-category counts as exhausted."""
REDRAWS = 30
LISTED = (3, 4, 5)
"""Lengths of an enumeration."""
SEVERAL = (2, 3, 4)
"""Numbers of pictures that a text is wanted for."""


class Rendered(NamedTuple):
    """A prompt, its slot values, and what it is about whatever its dress."""

    text: str
    slots: dict[str, Any]
    core: tuple[str, ...]


class Misfit(ValueError):
    """No values were found that go with each other."""


def _draw(rng: random.Random, bank: Bank, words: set[str]) -> Entry:
    """An entry that shares no content word with the values before it."""
    for _ in range(REDRAWS):
        entry = rng.choice(bank.entries)
        if not entry.words & words:
            # What a modifier says may recur: it is about the picture, not in it.
            if not bank.modifier:
                words |= entry.words
            return entry
    raise Misfit(bank.name)


def render(template: Template, taxonomy: Taxonomy, rng: random.Random) -> Rendered:
    """The template with random values.

    Raises:
        Misfit: its banks have too few entries without a word in common.
    """
    values: dict[str, list[Entry]] = {}
    slots: dict[str, Any] = {}
    core: list[str] = []
    words: set[str] = set()
    number = rng.choice(LISTED)
    parts: list[str] = []
    for piece in template.pieces:
        if isinstance(piece, str):
            parts.append(piece)
        elif piece == NUMBER:
            slots["n"] = number
            parts.append(NUMBER_WORDS[number])
        elif isinstance(piece, Slot):
            if piece.key not in values:
                bank = taxonomy.banks[piece.bank]
                drawn = [_draw(rng, bank, words) for _ in range(number if piece.many else 1)]
                values[piece.key] = drawn
                texts = [entry.text for entry in drawn]
                slots[piece.key] = texts if piece.many else texts[0]
                core += [] if bank.modifier else texts
            parts.append(_said(piece, values[piece.key]))
        else:
            wording = rng.choice(piece)
            slots[f"wording.{sum(key.startswith('wording') for key in slots) + 1}"] = wording
            parts.append(wording)
    return Rendered(with_capitals("".join(parts)), slots, tuple(sorted(core)))


def _said(slot: Slot, entries: list[Entry]) -> str:
    if slot.form == "bare":
        return entries[0].bare
    if slot.form == "count":
        return NUMBER_WORDS[entries[0].count]
    return listed([entry.text for entry in entries])


def _key(*words: str) -> bytes:
    """Eight bytes that stand for the words; two of 40,000 prompts collide once in 10¹⁰ runs."""
    return hashlib.blake2b("\n".join(words).encode(), digest_size=8).digest()


class Filter:
    """Both rules on near-duplicates; remembers what it let pass."""

    def __init__(self) -> None:
        self._said: set[bytes] = set()
        self._alike: Counter[bytes] = Counter()

    def refuses(
        self, subcategory: Subcategory, rendered: Rendered, given: Sequence[Given] = ()
    ) -> str | None:
        """Why the prompt is a near-duplicate of earlier ones; nothing if it passes."""
        seen = [picture.digest for picture in given]
        said = _key(*content_words(rendered.text), *seen)
        if said in self._said:
            return "asked-in-other-words"
        core = _key(subcategory.name, *rendered.core, *seen)
        if self._alike[core] >= MOST_ALIKE:
            return "in-another-dress"
        self._said.add(said)
        self._alike[core] += 1
        return None


class Sort(NamedTuple):
    """The requests of a sub-category that have pictures, or those that have none."""

    subcategory: Subcategory
    templates: tuple[Template, ...]
    given: Sequence[Given]
    wanted: int


def sorts(taxonomy: Taxonomy, count: int, given: Sequence[Given], share: float) -> Iterator[Sort]:
    """``count`` requests as their sorts; ``share`` of them have pictures, if any are given."""
    entries = taxonomy.subcategories
    with_pictures = round(count * share) if given else 0
    plain = quotas([entry.weight for entry in entries], count - with_pictures)
    for entry, wanted in zip(entries, plain, strict=True):
        yield Sort(entry, entry.templates, (), wanted)
    if not with_pictures:
        return
    several = len(given) >= max(SEVERAL)
    fitting = [(e, e.with_picture + (e.about_pictures if several else ())) for e in entries]
    fitting = [(entry, templates) for entry, templates in fitting if templates]
    pictured = quotas([entry.weight for entry, _ in fitting], with_pictures)
    for (entry, templates), wanted in zip(fitting, pictured, strict=True):
        yield Sort(entry, templates, given, wanted)


def drafts(
    taxonomy: Taxonomy,
    count: int,
    seed: int,
    lost: Counter[str],
    given: Sequence[Given] = (),
    share: float = 0.0,
) -> Iterator[Draft]:
    """``count`` requests one by one, well mixed; ``lost`` counts what was turned down.

    Each sort has a stream of random numbers of its own.

    Args:
        given: pictures that requests may come with.
        share: how many of the requests do, if any are given.

    Raises:
        InterloomError: a sub-category has no more to say.
    """
    found = list(sorts(taxonomy, count, given, share))
    order = [place for place, sort in enumerate(found) for _ in range(sort.wanted)]
    random.Random(derive_seed(seed, "taxonomy", "order")).shuffle(order)
    rngs = [
        random.Random(
            derive_seed(seed, "taxonomy", sort.subcategory.name, "pictures" if sort.given else "")
        )
        for sort in found
    ]
    passed = Filter()
    for place in order:
        sort = found[place]
        draft = _next(sort, taxonomy, rngs[place], passed, lost)
        if draft is None:
            more = "lower the count, or give more pictures" if sort.given else ""
            raise InterloomError(
                f"prompts.count = {count}: the sub-category {sort.subcategory.name!r} has not "
                f"{sort.wanted} different requests{' with pictures' if sort.given else ''}; "
                f"{more or 'lower the count, or raise prompts.expand'}"
            )
        yield draft


def _next(
    sort: Sort,
    taxonomy: Taxonomy,
    rng: random.Random,
    passed: Filter,
    lost: Counter[str],
) -> Draft | None:
    for _ in range(MOST_TRIES):
        template = rng.choice(sort.templates)
        try:
            rendered = render(template, taxonomy, rng)
        except Misfit:
            lost["does-not-fit"] += 1
            continue
        answered = template in sort.subcategory.about_pictures
        number = rng.choice(SEVERAL) if answered else 1
        given = rng.sample(sort.given, number) if sort.given else []
        why = passed.refuses(sort.subcategory, rendered, given)
        if why is None:
            return _draft(sort, template, rendered, given, answered)
        lost[why] += 1
    return None


def _draft(
    sort: Sort, template: Template, rendered: Rendered, given: list[Given], answered: bool
) -> Draft:
    names = {"pictures": [picture.path.name for picture in given]} if given else {}
    captions = tuple(picture.caption for picture in given)
    return Draft(
        text=rendered.text,
        category=sort.subcategory.category,
        subcategory=sort.subcategory.name,
        template=template.name,
        slots={**rendered.slots, **names},
        kind="text_response" if answered else "continuation" if given else "create",
        pictures=tuple(picture.read() for picture in given),
        # Captions are for all of a request's pictures or for none.
        captions=captions if all(captions) else (),
    )
