"""Scenes and edits to English and back.

Every sentence that this module writes, it can read: ``parse`` turns text (with the scene it speaks
about) into the :class:`~interloom.pocket.goal.Goal` that a picture has to meet. The wordings are
data, in ``text/phrasings.yaml``. Riddles and reasoning are one floor up, in ``meaning.py``.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Literal

import yaml

from interloom.pocket.goal import Goal
from interloom.pocket.scene import (
    BACKGROUNDS,
    CELLS,
    COLOURS,
    KINDS,
    OPERATIONS,
    POSITIONS,
    SPRITES,
    Edit,
    EditError,
    Operation,
    Scene,
    Sprite,
    apply,
)

Form = Literal["canonical", "paraphrased", "vague", "state"]
EditForm = Form | Literal["usual"]
"""``usual`` is the first paraphrase, always the same."""
KEEP = "keep everything else"
CORRECTION_STYLES = (
    "plain", "keep", "state", "state_keep", "again", "not_yet", "stress", "insist",
)  # fmt: skip


class MeaningError(ValueError):
    """A text that says nothing the world knows, or that does not fit the scene."""


def with_article(name: str) -> str:
    """
    >>> with_article("orange cup")
    'an orange cup'
    """
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"


def numbered(texts: Iterable[str], first: int = 1) -> str:
    """
    >>> numbered(["add a red sun at the center", "change the background to night"])
    '1 add a red sun at the center; 2 change the background to night'
    """
    return "; ".join(f"{number} {text}" for number, text in enumerate(texts, first))


def short_name(text: str) -> str:
    """What an order or a thing is called for short: what stands before its place.

    >>> short_name("replace the yellow cloud at the top left with a yellow fish")
    'replace the yellow cloud'
    """
    return text.partition(" at the ")[0]


@cache
def phrasings() -> dict[str, Any]:
    text = files("interloom.pocket").joinpath("text/phrasings.yaml").read_text("utf-8")
    return yaml.safe_load(text)


# ---------------------------------------------------------------------------------- writing


def _slots(edit: Edit, scene: Scene) -> dict[str, str]:
    slots: dict[str, str] = {}
    after = apply(scene, edit)
    if edit.at is not None:
        slots["at"] = POSITIONS[edit.at]
        here, new = scene.cells[edit.at], after.cells[edit.at]
        if here:
            slots |= {"here": str(here), "a_here": with_article(str(here)), "kind": here.kind}
        if new and edit.operation in ("add", "recolour", "replace"):
            slots["a_new"] = with_article(str(new))
    if edit.to is not None:
        slots["to"] = POSITIONS[edit.to]
        there = scene.cells[edit.to]
        if there:
            slots |= {"there": str(there), "a_there": with_article(str(there))}
    if edit.colour:
        slots["colour"] = edit.colour
    if edit.background:
        slots["background"] = edit.background
    return slots


def describe_edit(
    edit: Edit, scene: Scene, form: EditForm = "canonical", rng: random.Random | None = None
) -> str:
    """Say an edit of a scene in words; ``rng`` chooses among the wordings of a form.

    >>> sun = Scene.of({0: Sprite("red", "sun")})
    >>> describe_edit(Edit("recolour", at=0, colour="blue"), sun)
    'make the red sun at the top left blue'
    """
    ways = phrasings()["edits"][edit.operation]
    wordings = ways["paraphrased"][0] if form == "usual" else ways[form]
    if isinstance(wordings, list):
        assert rng is not None, "a form with several wordings needs an rng"
        wordings = rng.choice(wordings)
    return wordings.format(**_slots(edit, scene))


def correct(edit: Edit, scene: Scene, style: str) -> str:
    """The edit as a correction in one of ``CORRECTION_STYLES``."""
    canonical, state = describe_edit(edit, scene), describe_edit(edit, scene, "state")
    return phrasings()["corrections"][style].format(canonical=canonical, state=state)


def describe_cell(scene: Scene, cell: int) -> str:
    """What must be seen in a cell.

    >>> describe_cell(Scene(), 4)
    'the center must be empty'
    """
    sprite = scene.cells[cell]
    return f"the {POSITIONS[cell]} must be {with_article(str(sprite)) if sprite else 'empty'}"


def describe_scene(
    scene: Scene,
    form: Form = "canonical",
    rng: random.Random | None = None,
) -> str:
    """Say a whole scene in words; with ``rng`` its things come in random order.

    >>> describe_scene(Scene.of({4: Sprite("orange", "cup")}, "night"))
    'an orange cup at the center, at night'
    """
    things = list(scene.sprites())
    if rng:
        rng.shuffle(things)
    if form == "state":
        parts = [describe_cell(scene, cell) for cell, _ in things]
        return "; ".join([*parts, f"the background must be {scene.background}"])
    when = "" if scene.background == "day" else f", at {scene.background}"
    items = ", ".join(f"{with_article(str(s))} at the {POSITIONS[c]}" for c, s in things)
    names = ", ".join(with_article(str(s)) for _, s in things)
    wordings = phrasings()["scenes"][form]
    if isinstance(wordings, list):
        assert rng is not None, "a form with several wordings needs an rng"
        wordings = rng.choice(wordings)
    return wordings.format(items=items or "nothing", things=names or "nothing", when=when)


# ---------------------------------------------------------------------------------- reading

_POSITION = "|".join(sorted(POSITIONS, key=len, reverse=True))
_NAME = rf"(?:{'|'.join(COLOURS)}) (?:{'|'.join(KINDS)})"
_SLOT_PATTERNS = {
    "here": _NAME, "there": _NAME,
    "a_here": rf"an? (?:{_NAME})", "a_there": rf"an? (?:{_NAME})", "a_new": rf"an? (?:{_NAME})",
    "kind": "|".join(KINDS), "colour": "|".join(COLOURS), "background": "|".join(BACKGROUNDS),
    "at": _POSITION, "to": _POSITION,
}  # fmt: skip


def _pattern(template: str) -> re.Pattern[str]:
    pieces = re.split(r"\{(\w+)\}", template)
    return re.compile(
        "".join(
            re.escape(piece) if i % 2 == 0 else f"(?P<{piece}>{_SLOT_PATTERNS[piece]})"
            for i, piece in enumerate(pieces)
        )
    )


@dataclass(frozen=True)
class Phrasing:
    operation: Operation
    form: Form
    pattern: re.Pattern[str]


@cache
def _edit_patterns() -> tuple[Phrasing, ...]:
    found = []
    forms: tuple[Form, ...] = ("canonical", "paraphrased", "vague")
    for form in forms:
        for operation in OPERATIONS:
            wordings = phrasings()["edits"][operation][form]
            for wording in [wordings] if isinstance(wordings, str) else wordings:
                found.append(Phrasing(operation, form, _pattern(wording)))
    return tuple(found)


@cache
def _corrections() -> tuple[re.Pattern[str], ...]:
    frames = [f for f in phrasings()["corrections"].values() if f not in ("{canonical}", "{state}")]
    return tuple(
        re.compile(re.sub(r"\\\{(canonical|state)\\\}", "(.+)", re.escape(f))) for f in frames
    )


_STATE = re.compile(rf"the ({_POSITION}) must (?:be|stay) (?:(empty)|an? ({_NAME}))")
_STATE_BACKGROUND = re.compile(rf"the background must be ({'|'.join(BACKGROUNDS)})")
_ITEM = re.compile(rf"an? ({_NAME})(?: at the ({_POSITION}))?")
_WHEN = re.compile(rf",? at ({'|'.join(b for b in BACKGROUNDS if b != 'day')})$")


def normalise(text: str) -> str:
    """Lower case, single spaces, no final stop."""
    return re.sub(r"\s+", " ", text).strip().rstrip(".!").lower()


def as_sprite(name: str) -> Sprite:
    colour, kind = name.removeprefix("an ").removeprefix("a ").split()
    return Sprite(colour, kind)


def _candidates(operation: Operation, said: dict[str, str | None], scene: Scene) -> list[Edit]:
    """All edits of an operation that the scene allows and the words do not exclude."""
    at_said, to_said = said.get("at"), said.get("to")
    cells = [POSITIONS.index(at_said)] if at_said else list(range(CELLS))
    targets = [POSITIONS.index(to_said)] if to_said else list(range(CELLS))
    here, there, new = said.get("here"), said.get("there"), said.get("a_new")

    def named(cell: int, name: str | None) -> bool:
        sprite = scene.cells[cell]
        kind = said.get("kind") if name == here else None
        return (name is None or name == str(sprite)) and (
            kind is None or (sprite is not None and sprite.kind == kind)
        )

    edits: list[Edit] = []
    if operation == "background":
        wanted = said.get("background")
        return [Edit("background", background=b) for b in ([wanted] if wanted else BACKGROUNDS)]
    if operation == "add":
        sprites = [as_sprite(new)] if new else SPRITES
        return [Edit("add", at=cell, sprite=sprite) for cell in cells for sprite in sprites]
    for cell in cells:
        if not named(cell, here):
            continue
        if operation == "remove":
            edits.append(Edit("remove", at=cell))
        elif operation == "recolour":
            colour = said.get("colour")
            edits += [
                Edit("recolour", at=cell, colour=c) for c in ([colour] if colour else COLOURS)
            ]
        elif operation == "replace":
            sprites = [as_sprite(new)] if new else SPRITES
            edits += [Edit("replace", at=cell, sprite=sprite) for sprite in sprites]
        else:
            edits += [Edit(operation, at=cell, to=to) for to in targets if named(to, there)]
    return edits


def find_edits(text: str, scene: Scene) -> list[Edit]:
    """The edits that one sentence (not a state, not a caption) allows; ``[]`` if it is no edit.

    Raises:
        MeaningError: it is an edit, but not one of this scene.
    """
    reasons = []
    for phrasing in _edit_patterns():
        match = phrasing.pattern.fullmatch(text)
        if not match:
            continue
        valid = []
        for edit in _candidates(phrasing.operation, match.groupdict(), scene):
            try:
                apply(scene, edit)
            except EditError as error:
                reasons.append(str(error))
                continue
            valid.append(edit)
        if valid:
            return valid
        reasons.append("the scene has nothing that fits")
    if reasons:
        raise MeaningError(f"{text!r} does not fit the picture: {reasons[0]}")
    return []


def _caption(text: str) -> Goal | None:
    for opening in (
        "a picture with ",
        "draw ",
        "show ",
        "please paint ",
        "i want to see ",
        "an image of ",
    ):
        text = text.removeprefix(opening)
    when = _WHEN.search(text)
    background = when.group(1) if when else "day"
    body = (text[: when.start()] if when else text).removesuffix(" anywhere")
    if body == "nothing":
        return Goal(scenes=(Scene(background=background),))
    items = [_ITEM.fullmatch(item) for item in re.split(r", and |, | and ", body)]
    if not items or any(item is None for item in items):
        return None
    found = [(as_sprite(m.group(1)), m.group(2)) for m in items if m]
    if all(place is None for _, place in found):
        return Goal(contents=tuple(sprite for sprite, _ in found), background=background)
    cells = {POSITIONS.index(place): sprite for sprite, place in found if place}
    if len(cells) != len(found):
        raise MeaningError(f"{text!r} names a cell twice or leaves some things without one")
    return Goal(scenes=(Scene.of(cells, background),))


def _bare(text: str) -> str:
    """The sentence inside a correction's frame."""
    for frame in _corrections():
        match = frame.fullmatch(text)
        if match:
            return _bare(match.group(1))
    return text


def parse(text: str, scene: Scene | None = None) -> Goal:
    """What a text wants to see, given the picture it speaks about (``None``: a blank canvas).

    Parts joined by ``;`` are carried out in order. A caption describes a whole picture, whatever
    was there before.

    Raises:
        MeaningError: nothing known is said, or it cannot be done in this scene.
    """
    before = scene or Scene()
    scenes = [before]
    for part in _bare(normalise(text)).split("; "):
        if part in (KEEP, "nothing else"):
            continue
        state, sky = _STATE.fullmatch(part), _STATE_BACKGROUND.fullmatch(part)
        if state:
            cell = POSITIONS.index(state.group(1))
            sprite = None if state.group(2) else as_sprite(state.group(3))
            scenes = [s.with_cell(cell, sprite) for s in scenes]
        elif sky:
            scenes = [Scene(s.cells, sky.group(1)) for s in scenes]
        else:
            caption = _caption(part)
            if caption:
                if ";" not in text:
                    return Goal(caption.scenes, caption.contents, caption.background, scene)
                scenes = list(caption.scenes) or scenes
                continue
            edits = [(s, edit) for s in scenes for edit in find_edits(part, s)]
            if not edits:
                raise MeaningError(f"{part!r} is not an instruction that the pocket world knows")
            scenes = list(dict.fromkeys(apply(s, edit) for s, edit in edits))
    return Goal(scenes=tuple(scenes), before=scene)


def parse_canonical_edit(text: str, scene: Scene) -> Edit:
    """The one edit that a canonical sentence means.

    Raises:
        MeaningError: it is not a fully determined edit of the scene.
    """
    edits = find_edits(normalise(text), scene)
    if len(edits) != 1:
        raise MeaningError(f"{text!r} leaves {len(edits)} possible edits, not one")
    return edits[0]


def parse_canonical_scene(text: str) -> Scene:
    """The one scene that a canonical caption means.

    Raises:
        MeaningError: it is not a caption with a place for everything.
    """
    goal = _caption(normalise(text))
    if goal is None or len(goal.scenes) != 1:
        raise MeaningError(f"{text!r} is not a caption with a place for everything")
    return goal.scenes[0]
