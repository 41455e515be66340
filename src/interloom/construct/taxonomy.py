"""The full taxonomy of the prompts, as reviewed text files: loaded and checked (§3.3, stage 1).

Main category → sub-category → templates with typed slots → banks of vocabulary. The files are
``taxonomy/*.yaml``: one per main category, and ``shared.yaml`` with what all of them use.

A template is a sentence with slots in braces:

``{animal}``, ``{animal.2}``
    an entry of the bank ``animal``, and another one: the values of a prompt never share a word.
``{animal:bare}``
    the entry of ``{animal}`` without its article.
``{object[n]}``, ``{n}``
    an enumeration of several different entries, and their number as a word.
``{life_cycle:count}``
    the number that belongs to the entry of ``{life_cycle}`` (banks with ``counts``).
``{four|five|six}``
    one of these wordings.

A bank marked ``modifier`` (styles, framings) does not change what a prompt is about; see
``taxonomy_prompts.py`` on near-duplicates. ``frames`` are templates with an open slot, which a
sub-category binds to a bank: ``frames: {how_to: {task: garden_task}}``. ``with_picture`` are
templates of requests that come with one picture and want more; ``about_pictures`` come with several
and want a text for each. What the pictures show is not known, so these fit any.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from interloom.construct.english import bare, content_words, wrong_article
from interloom.errors import InterloomError
from interloom.params import explain, read_params

FOLDER = Path(__file__).parent / "taxonomy"
LEAST_SHARE = 0.003
"""Of the prompts, for every sub-category."""

Line = Annotated[str, Field(min_length=1)]


class _Text(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class BankText(_Text):
    """A bank as it stands in a file: ``entries``, or ``counts`` (entry → its number)."""

    about: Line
    """What an entry is and how it fits into a sentence; also told to a teacher that adds some."""
    modifier: bool = False
    entries: list[Line] = []
    counts: dict[str, Annotated[int, Field(ge=2, le=9)]] = {}


class SubcategoryText(_Text):
    weight: Annotated[float, Field(gt=0, le=10)] = 1.0
    """Share of the prompts, relative to the other sub-categories."""
    frames: dict[str, dict[str, str]] = {}
    """Group of frames → its open slots and the banks that they are bound to."""
    templates: list[Line] = []
    with_picture: list[Line] = []
    about_pictures: list[Line] = []


class TaxonomyText(_Text):
    """One file."""

    category: str = ""
    about: str = ""
    banks: dict[str, BankText] = {}
    frames: dict[str, list[Line]] = {}
    subcategories: dict[str, SubcategoryText] = {}


class Entry(NamedTuple):
    """A value for a slot: its text, without article, its content words, its number (or 0)."""

    text: str
    bare: str
    words: frozenset[str]
    count: int


class Bank(NamedTuple):
    """A vocabulary bank, checked."""

    name: str
    about: str
    modifier: bool
    entries: tuple[Entry, ...]


class Slot(NamedTuple):
    """A place in a template. ``many``: 0 for one value, else that of an enumeration of ``n``."""

    key: str
    bank: str
    form: str
    many: bool


Piece = str | Slot | tuple[str, ...]
"""Literal text, a slot, or wordings to choose from."""
NUMBER = Slot("n", "", "", False)


class Template(NamedTuple):
    """``name`` tells it apart from all others; ``source`` is its text in the file."""

    name: str
    source: str
    pieces: tuple[Piece, ...]


class Subcategory(NamedTuple):
    category: str
    name: str
    weight: float
    templates: tuple[Template, ...]
    with_picture: tuple[Template, ...] = ()
    about_pictures: tuple[Template, ...] = ()

    @property
    def all_templates(self) -> tuple[Template, ...]:
        return self.templates + self.with_picture + self.about_pictures


class Taxonomy(NamedTuple):
    """Everything that the writer needs."""

    banks: Mapping[str, Bank]
    subcategories: tuple[Subcategory, ...]

    @property
    def categories(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(entry.category for entry in self.subcategories))

    @property
    def templates(self) -> dict[str, str]:
        """Name → source of every template; a frame counts once, however often it is bound."""
        return {t.name: t.source for entry in self.subcategories for t in entry.all_templates}


def entry_of(text: str, count: int = 0) -> Entry:
    return Entry(text, bare(text), frozenset(content_words(text)), count)


def entry_fault(text: str) -> str | None:
    """What is wrong with the form of an entry; nothing if it fits into a sentence."""
    if text != " ".join(text.split()):
        return "has spaces too many"
    if not text or not (text[0].isalnum() and text[-1].isalnum()):
        return "must begin and end with a letter or digit"
    if set(text) & set('.!?;{}[]|"“”'):
        return "has a sign that does not belong into a phrase"
    wrong = wrong_article(text)
    return f"has a wrong article: {wrong!r}" if wrong else None


def load(folder: Path = FOLDER) -> Taxonomy:
    """Read and check all ``*.yaml`` of a folder.

    Raises:
        InterloomError: names the file, the key and what is wrong with it.
    """
    paths = sorted(folder.glob("*.yaml"))
    if not paths:
        raise InterloomError(f"{folder}: no taxonomy files (*.yaml)")
    texts = {path: _read(path) for path in paths}
    banks: dict[str, Bank] = {}
    frames: dict[str, tuple[str, ...]] = {}
    for path, text in texts.items():
        for name, bank in text.banks.items():
            if name in banks:
                raise _fault(path, f"banks.{name}", "another file has a bank of this name")
            banks[name] = _bank(path, name, bank)
        for name, lines in text.frames.items():
            if name in frames:
                raise _fault(path, f"frames.{name}", "another file has frames of this name")
            if not lines:
                raise _fault(path, f"frames.{name}", "is empty")
            frames[name] = tuple(lines)
    subcategories = tuple(
        subcategory
        for path, text in texts.items()
        for subcategory in _subcategories(path, text, banks, frames)
    )
    _check_use(texts, banks, subcategories)
    return Taxonomy(banks, subcategories)


def _fault(path: Path, key: str, what: str) -> InterloomError:
    return InterloomError(f"{path}: {key}: {what}")


def _read(path: Path) -> TaxonomyText:
    try:
        text = TaxonomyText.model_validate(read_params(path))
    except ValidationError as error:
        raise InterloomError(f"{path}: {explain(error.errors()[0], TaxonomyText)}") from None
    if bool(text.category) != bool(text.subcategories):
        raise _fault(path, "category", "a file with subcategories, and only such, needs a category")
    return text


def _bank(path: Path, name: str, text: BankText) -> Bank:
    key = f"banks.{name}"
    if bool(text.entries) == bool(text.counts):
        raise _fault(path, key, "is empty" if not text.entries else "has entries and counts")
    pairs = list(text.counts.items()) or [(entry, 0) for entry in text.entries]
    seen: set[str] = set()
    for entry, _ in pairs:
        what = entry_fault(entry)
        if what:
            raise _fault(path, key, f"{entry!r} {what}")
        if bare(entry).casefold() in seen:
            raise _fault(path, key, f"{entry!r} stands there twice")
        seen.add(bare(entry).casefold())
    entries = tuple(entry_of(entry, count) for entry, count in pairs)
    return Bank(name, text.about, text.modifier, entries)


# --- templates ------------------------------------------------------------------------------------

_BRACES = re.compile(r"\{([^{}]*)\}")
_SLOT = re.compile(r"([a-z_]+)(\.[2-9])?(\[n\])?(?::(bare|count))?")


def parse(source: str, banks: Mapping[str, Bank], bound: Mapping[str, str]) -> tuple[Piece, ...]:
    """A template as its pieces; ``bound`` gives the banks of open slots.

    Raises:
        ValueError: says what is wrong.
    """
    pieces: list[Piece] = []
    for place, part in enumerate(_BRACES.split(source)):
        if place % 2 == 0:
            if "{" in part or "}" in part:
                raise ValueError("a brace without its partner")
            pieces += [part] if part else []
        elif "|" in part:
            pieces.append(tuple(part.split("|")))
        elif part == "n":
            pieces.append(NUMBER)
        else:
            pieces.append(_slot(part, banks, bound))
    slots = [piece for piece in pieces if isinstance(piece, Slot)]
    keys = {slot.key for slot in slots}
    for slot in slots:
        if "." in slot.key and slot.bank not in keys and f"{slot.bank}[n]" not in keys:
            raise ValueError(f"{{{slot.key}}} without {{{slot.bank}}}")
    if source != " ".join(source.split()):
        raise ValueError("spaces too many")
    return tuple(pieces)


def _slot(part: str, banks: Mapping[str, Bank], bound: Mapping[str, str]) -> Slot:
    found = _SLOT.fullmatch(part)
    if found is None:
        raise ValueError(f"{{{part}}} is no slot")
    name, other, many, form = found.groups(default="")
    bank = bound.get(name, name)
    if bank not in banks:
        raise ValueError(f"unknown slot {{{part}}}: there is no bank {bank!r}")
    if form == "count" and not banks[bank].entries[0].count:
        raise ValueError(f"{{{part}}}: bank {bank!r} has no counts")
    if many and form:
        raise ValueError(f"{{{part}}}: an enumeration has no form")
    return Slot(f"{bank}{other}{many}", bank, form, bool(many))


def _subcategories(
    path: Path,
    text: TaxonomyText,
    banks: Mapping[str, Bank],
    frames: Mapping[str, tuple[str, ...]],
) -> Iterator[Subcategory]:
    for name, entry in text.subcategories.items():
        key = f"subcategories.{name}"
        templates: list[Template] = []
        for frame, bound in entry.frames.items():
            if frame not in frames:
                raise _fault(path, f"{key}.frames", f"unknown frames {frame!r}")
            for slot in bound:
                if not any(re.search(rf"\{{{slot}\b", line) for line in frames[frame]):
                    raise _fault(path, f"{key}.frames.{frame}", f"no frame has a slot {{{slot}}}")
            templates += _templates(path, f"{key}.frames.{frame}", frames[frame], banks, bound)
        templates += _templates(path, f"{key}.templates", entry.templates, banks, {})
        if not templates:
            raise _fault(path, key, "has neither templates nor frames")
        yield Subcategory(
            text.category,
            name,
            entry.weight,
            tuple(templates),
            tuple(_templates(path, f"{key}.with_picture", entry.with_picture, banks, {})),
            tuple(_templates(path, f"{key}.about_pictures", entry.about_pictures, banks, {})),
        )


def _templates(
    path: Path,
    key: str,
    lines: Iterable[str],
    banks: Mapping[str, Bank],
    bound: Mapping[str, str],
) -> Iterator[Template]:
    _, subcategory, kind, *frame = key.split(".")
    group = frame[0] if frame else subcategory.replace(" ", "-")
    if kind in ("with_picture", "about_pictures"):
        group += f"-{kind.replace('_', '-')}"
    for number, line in enumerate(lines, 1):
        try:
            pieces = parse(line, banks, bound)
            if all(isinstance(piece, str) for piece in pieces):
                raise ValueError("no slot")
        except ValueError as error:
            raise _fault(path, f"{key}, number {number}", str(error)) from None
        yield Template(f"{group}-{number}", line, pieces)


def _check_use(
    texts: Mapping[Path, TaxonomyText],
    banks: Mapping[str, Bank],
    subcategories: tuple[Subcategory, ...],
) -> None:
    """Nothing is left lying about, nothing occurs twice, no share is too small."""
    templates = [template for entry in subcategories for template in entry.all_templates]
    used = {piece.bank for one in templates for piece in one.pieces if isinstance(piece, Slot)}
    bound = {
        name for text in texts.values() for e in text.subcategories.values() for name in e.frames
    }
    known: Counter[str] = Counter(
        line for text in texts.values() for e in text.subcategories.values() for line in e.templates
    )
    homes = Counter(entry.name for entry in subcategories)
    for path, text in texts.items():
        for name in text.banks:
            if name not in used:
                raise _fault(path, f"banks.{name}", "no template uses this bank")
        for name, lines in text.frames.items():
            if name not in bound:
                raise _fault(path, f"frames.{name}", "no sub-category uses these frames")
            if len(set(lines)) < len(lines):
                raise _fault(path, f"frames.{name}", "a template stands there twice")
        for name, entry in text.subcategories.items():
            if homes[name] > 1:
                raise _fault(path, f"subcategories.{name}", "stands in more than one category")
            double = [line for line in entry.templates if known[line] > 1]
            if double:
                raise _fault(path, f"subcategories.{name}", f"{double[0]!r} stands there twice")
            share = entry.weight / sum(one.weight for one in subcategories)
            if share < LEAST_SHARE:
                what = f"has {share:.2%} of the prompts, at least {LEAST_SHARE:.1%} is wanted"
                raise _fault(path, f"subcategories.{name}.weight", what)
    if not banks or not subcategories:
        raise _fault(next(iter(texts)).parent, "taxonomy", "has no banks or no subcategories")
