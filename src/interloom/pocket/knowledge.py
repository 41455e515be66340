"""What the pocket world knows: riddles, reasoning rules and procedures.

The texts are reviewed data (``text/riddles.yaml``, ``reasoning.yaml``, ``procedures.yaml``); this
module loads them and says on which side of the train/evaluation line each one stands.
``reasoning.py`` and ``procedures.py`` turn rules and procedures into edits and scenes. All their
edits are canonical sentences of the pocket world's language.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Literal

import yaml

try:
    from yaml import CSafeLoader as _Loader
except ImportError:  # PyYAML built without libyaml: the same result, ten times slower
    from yaml import SafeLoader as _Loader

from interloom.pocket.language import as_sprite
from interloom.pocket.scene import Split, Sprite

WISE = ("culture", "time", "space", "biology", "physics", "chemistry")
RISE = ("temporal", "causal", "spatial", "logical")
MAIN_CATEGORIES = (
    "robotics", "storytelling", "art", "image_description",
    "workflows", "daily_life", "science", "professional_skills",
)  # fmt: skip
EVALUATION_SHARE = 0.28
EVALUATION_MINIMUM = 4
SceneOperation = Literal["mirror", "flip", "rotate", "half_turn"]


@dataclass(frozen=True, slots=True)
class Riddle:
    """A fact of one WISE category, and noun phrases that stand for its answer in a prompt."""

    id: str
    category: str
    subcategory: str
    answer: Sprite
    riddle: str
    paraphrases: tuple[str, ...]
    fact: str

    @property
    def phrases(self) -> tuple[str, ...]:
        return (self.riddle, *self.paraphrases)


@dataclass(frozen=True, slots=True)
class ReasoningRule:
    """What one RISE instruction does to a scene; the texts are templates (see ``reasoning.py``).

    ``subject`` and the values of ``when`` are sprite patterns (``reasoning.matches``); ``when``
    asks for them, or for ``empty``, at places around the subject. A rule has either ``edits`` or
    ``scene``.
    """

    id: str
    category: str
    instruction: tuple[str, ...]
    auxiliary_text: str
    subject: str | None = None
    background: str | None = None
    when: tuple[tuple[str, str], ...] = ()
    edits: tuple[str, ...] = ()
    scene: SceneOperation | None = None


@dataclass(frozen=True, slots=True)
class ProcedureStep:
    """One step as written: ``edit`` (joined by ``"; "``), or ``scene`` for a first picture."""

    name: str
    instruction: str
    auxiliary_text: str | None
    edit: str | None = None
    scene: str | None = None


@dataclass(frozen=True, slots=True)
class Procedure:
    """A procedure or story in 2–8 steps from the empty day scene; ``slots`` has allowed values."""

    id: str
    category: str
    subcategory: str
    requests: tuple[str, ...]
    slots: tuple[tuple[str, tuple[str, ...]], ...]
    steps: tuple[ProcedureStep, ...]


# ---------------------------------------------------------------------------------- loading


def _entries(name: str) -> list[dict[str, Any]]:
    text = files("interloom.pocket").joinpath(f"text/{name}.yaml").read_text("utf-8")
    return yaml.load(text, Loader=_Loader)


@cache
def _riddles() -> tuple[Riddle, ...]:
    loaded = []
    for entry in _entries("riddles"):
        entry["answer"] = as_sprite(entry["answer"])
        entry["paraphrases"] = tuple(entry["paraphrases"])
        loaded.append(Riddle(**entry))
    return tuple(loaded)


@cache
def _reasoning_rules() -> tuple[ReasoningRule, ...]:
    loaded = []
    for entry in _entries("reasoning"):
        entry["instruction"] = tuple(entry["instruction"])
        entry["when"] = tuple(entry.get("when", {}).items())
        entry["edits"] = tuple(entry.get("edits", ()))
        loaded.append(ReasoningRule(**entry))
    return tuple(loaded)


@cache
def _procedures() -> tuple[Procedure, ...]:
    loaded = []
    for entry in _entries("procedures"):
        slots = entry.get("slots", {}).items()
        entry["slots"] = tuple((name, tuple(values)) for name, values in slots)
        entry["requests"] = tuple(entry["requests"])
        entry["steps"] = tuple(ProcedureStep(**step) for step in entry["steps"])
        loaded.append(Procedure(**entry))
    return tuple(loaded)


def _hash(identifier: str) -> str:
    return hashlib.sha256(identifier.encode()).hexdigest()


@cache
def _evaluation_ids() -> frozenset[str]:
    """In each category of each bank, the ids with the smallest hashes."""
    chosen: set[str] = set()
    for bank in (_riddles(), _reasoning_rules(), _procedures()):
        by_category: dict[str, list[str]] = defaultdict(list)
        for item in bank:
            by_category[item.category].append(item.id)
        for ids in by_category.values():
            count = max(EVALUATION_MINIMUM, round(EVALUATION_SHARE * len(ids)))
            chosen.update(sorted(ids, key=_hash)[:count])
    return frozenset(chosen)


@cache
def _known_ids() -> frozenset[str]:
    banks = (*_riddles(), *_reasoning_rules(), *_procedures())
    return frozenset(item.id for item in banks)


def split(identifier: str) -> Split:
    """The side on which a riddle, rule or procedure stands, wherever it is used.

    Raises:
        ValueError: no text has that id.
    """
    if identifier not in _known_ids():
        raise ValueError(f"no riddle, rule or procedure has the id {identifier!r}")
    return "evaluation" if identifier in _evaluation_ids() else "train"


def riddles(side: Split | None = None) -> tuple[Riddle, ...]:
    """All riddles, or those of one side, in file order."""
    return tuple(item for item in _riddles() if side in (None, split(item.id)))


def reasoning_rules(side: Split | None = None) -> tuple[ReasoningRule, ...]:
    """All reasoning rules, or those of one side, in file order."""
    return tuple(item for item in _reasoning_rules() if side in (None, split(item.id)))


def procedures(side: Split | None = None) -> tuple[Procedure, ...]:
    """All procedures, or those of one side, in file order."""
    return tuple(item for item in _procedures() if side in (None, split(item.id)))
