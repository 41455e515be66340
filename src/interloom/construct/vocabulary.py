"""The teacher-expanded variant: a chat model adds entries to the vocabulary banks (§3.3, stage 1).

One question a bank, with what an entry is, what is there already and an answer schema. What comes
back is not trusted: entries that are known, malformed or of another shape than the reviewed ones
are left out and counted. The answers are kept with the other remote ones, so a rerun costs nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from interloom.construct.english import bare
from interloom.construct.taxonomy import Bank, Taxonomy, entry_fault, entry_of
from interloom.dialogue import Conversation
from interloom.records import Failure

if TYPE_CHECKING:
    from interloom.backends.remote_roles import RemoteChat

FEW = 14
"""Up to so many different first words are a rule ("as", "with"); more are chance."""
LONGER = 2
"""Words that a new entry may have more than the longest reviewed one."""
TASK = """\
You extend a vocabulary bank from which requests for picture sequences are put together: an entry \
goes into a sentence as it is. Write {number} new entries for the bank "{name}".

What an entry is: {about}.

Keep to British English and to the form of the entries that are there: the same kind of phrase, \
the same article or first word, lower case but for names, no full stop. Be concrete, various and \
true to life; nothing violent, sexual or political, no brands, no living persons. Everything \
has to be something that can be seen in a picture. Repeat none of these:

{known}"""


class Shape(NamedTuple):
    """What the reviewed entries of a bank have in common."""

    first_words: frozenset[str]
    """Empty if any word may come first."""
    articles: bool
    longest: int

    @classmethod
    def of(cls, bank: Bank) -> Shape:
        heads = frozenset(entry.text.split()[0] for entry in bank.entries)
        ruled = len(heads) <= min(FEW, len(bank.entries) / 2)
        return cls(
            heads if ruled else frozenset(),
            any(entry.text != entry.bare for entry in bank.entries),
            max(len(entry.text.split()) for entry in bank.entries),
        )

    def fault(self, text: str) -> str | None:
        """What tells ``text`` from the reviewed entries; nothing if it fits."""
        words = text.split()
        # "A" and "an" are one first word.
        if (
            self.first_words
            and not {words[0], {"a": "an", "an": "a"}.get(words[0])} & self.first_words
        ):
            return "first-word"
        if not self.first_words and not self.articles and text != bare(text):
            return "article"
        return "too-long" if len(words) > self.longest + LONGER else None


class Growth(NamedTuple):
    """The larger taxonomy, and what was offered, taken and left out on the way."""

    taxonomy: Taxonomy
    offered: int
    taken: int
    left_out: Counter[str]
    unanswered: int
    """Banks for which the teacher gave no answer; they stay as they are."""


def conversation(bank: Bank, number: int) -> Conversation:
    """What the teacher is asked."""
    known = "\n".join(f"- {entry.text}" for entry in bank.entries)
    text = TASK.format(number=number, name=bank.name, about=bank.about, known=known)
    return Conversation([{"role": "user", "content": [{"type": "text", "text": text}]}], [])


def fitting(bank: Bank, offered: Sequence[str], left_out: Counter[str]) -> list[str]:
    """The new entries among ``offered``; ``left_out`` counts the others by reason."""
    shape = Shape.of(bank)
    known = {entry.bare.casefold() for entry in bank.entries}
    taken: list[str] = []
    for text in offered:
        if entry_fault(text):
            left_out["malformed"] += 1
        elif bare(text).casefold() in known:
            left_out["known"] += 1
        elif why := shape.fault(text):
            left_out[why] += 1
        else:
            known.add(bare(text).casefold())
            taken.append(text)
    return taken


def grow(taxonomy: Taxonomy, chat: RemoteChat, number: int) -> Growth:
    """The taxonomy with up to ``number`` more entries in every bank.

    Banks with counts stay as they are: a number of stages is for a reviewer to say.

    Raises:
        InterloomError: the backend can answer nothing (key, budget, server).
    """
    from interloom.backends.remote_roles import Form

    class Words(Form):
        entries: list[str]

    def read(bank: Bank, answer: bytes) -> list[str]:
        entries = Words.model_validate_json(answer).entries
        if not fitting(bank, entries, Counter()):
            raise ValueError(f"no entry for the bank {bank.name} fits")
        return entries

    open_banks = [bank for bank in taxonomy.banks.values() if not bank.entries[0].count]
    # The role is named in failures only; the teacher is a planner too.
    answers = chat.ask(
        "planner",
        [conversation(bank, number) for bank in open_banks],
        Words,
        [partial(read, bank) for bank in open_banks],
    )
    banks = dict(taxonomy.banks)
    left_out: Counter[str] = Counter()
    offered = taken = unanswered = 0
    for bank, answer in zip(open_banks, answers, strict=True):
        if isinstance(answer, Failure):
            unanswered += 1
            continue
        words = fitting(bank, answer, left_out)
        left_out["too-many"] += max(0, len(words) - number)
        more = tuple(entry_of(text) for text in words[:number])
        banks[bank.name] = bank._replace(entries=bank.entries + more)
        offered, taken = offered + len(answer), taken + len(more)
    return Growth(taxonomy._replace(banks=banks), offered, taken, +left_out, unanswered)
