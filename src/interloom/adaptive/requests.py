"""Requests for the adaptive reasoner: 21 sub-categories of editing and drawing in six groups.

SAIR's groups (§3.1) with sub-categories that the pocket world can draw and verify; a file of other
people's requests brings its own.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from interloom import images
from interloom.adaptive.story import Prompt
from interloom.construct.files import Place, read_lines
from interloom.errors import InterloomError
from interloom.pocket import wishes
from interloom.pocket.language import MeaningError
from interloom.pocket.render import render
from interloom.pocket.scene import Operation, Scene, scene_split
from interloom.pocket.several import understand_all
from interloom.seeding import derive_seed

PRESENCE: tuple[Operation, ...] = ("add", "remove", "replace")
TRIES = 400
"""Draws for one request before its sub-category counts as empty."""


def _rule(category: str, whole_scene: bool) -> wishes.Writer:
    return wishes.rule(category, whole_scene=whole_scene, side="train")


@dataclass(frozen=True)
class Subcategory:
    """One of the 21, and how its pocket edition is written."""

    group: str
    name: str
    write: wishes.Writer
    weight: int = 1
    """How often it is asked, against the others."""


SUBCATEGORIES: tuple[Subcategory, ...] = (
    Subcategory("object manipulation", "addition", wishes.orders(("add",))),
    Subcategory("object manipulation", "removal", wishes.orders(("remove",))),
    Subcategory("object manipulation", "replacement", wishes.orders(("replace",))),
    Subcategory("object manipulation", "mixed orders", wishes.orders(PRESENCE, 4)),
    Subcategory("attribute modification", "colour", wishes.orders(("recolour",))),
    Subcategory("attribute modification", "shape", wishes.another_shape),
    Subcategory(
        "attribute modification", "colour and presence", wishes.orders(("recolour", "remove"))
    ),
    Subcategory("spatial and viewpoint", "moving", wishes.orders(("move",))),
    Subcategory("spatial and viewpoint", "exchanging", wishes.orders(("swap",), 2)),
    Subcategory("spatial and viewpoint", "mirroring and turning", _rule("spatial", True)),
    Subcategory("spatial and viewpoint", "relative places", _rule("spatial", False)),
    Subcategory("global and style", "time of day", wishes.orders(("background",), 1)),
    Subcategory("global and style", "one colour for all", wishes.all_in_one_colour),
    Subcategory("global and style", "simple pictures", wishes.picture((1, 2)), 2),
    Subcategory("global and style", "crowded pictures", wishes.picture((3, 4, 5, 6)), 4),
    Subcategory("dynamics and logic", "what happens next", _rule("temporal", False)),
    Subcategory("dynamics and logic", "what follows", _rule("causal", False)),
    Subcategory("dynamics and logic", "riddles", wishes.riddle("train")),
    Subcategory("multi-image", "subject transfer", wishes.combine("subject")),
    Subcategory("multi-image", "background transfer", wishes.combine("background")),
    Subcategory("multi-image", "merging", wishes.combine("merge")),
)
GROUPS: tuple[str, ...] = tuple(dict.fromkeys(one.group for one in SUBCATEGORIES))
CATEGORIES: tuple[str, ...] = tuple(f"{one.group}/{one.name}" for one in SUBCATEGORIES)


def pocket_prompts(count: int, seed: int) -> list[Prompt]:
    """``count`` different requests of the training side, over the sub-categories by their weights.

    Raises:
        InterloomError: a sub-category has no further ones.
    """
    turns = [sub for sub in SUBCATEGORIES for _ in range(sub.weight)]
    prompts: list[Prompt] = []
    taken: set[str] = set()
    for number in range(count):
        sub = turns[number % len(turns)]
        rng = random.Random(derive_seed(seed, "adaptive", number))
        prompts.append(_new(sub, number, rng, taken))
    return prompts


def _new(sub: Subcategory, number: int, rng: random.Random, taken: set[str]) -> Prompt:
    for _ in range(TRIES):
        try:
            drawn = sub.write(rng)
            if drawn is None or not _trained(*drawn):
                continue
        except MeaningError:
            continue
        text, scenes = drawn
        key = f"{text}|{scenes}"
        if key in taken:
            continue
        taken.add(key)
        return Prompt(
            id=f"adaptive/{number:06d}",
            instruction=text,
            references=tuple(
                images.to_png(render(scene, jitter_seed=rng.getrandbits(31))) for scene in scenes
            ),
            category=f"{sub.group}/{sub.name}",
        )
    raise InterloomError(
        f"adaptive_data.count: the sub-category {sub.name!r} has no further requests: lower it"
    )


def _trained(text: str, scenes: tuple[Scene, ...]) -> bool:
    """Whether what is asked for is on the training side."""
    goal = understand_all(text, scenes).goal
    return not goal.scenes or any(scene_split(scene) == "train" for scene in goal.scenes)


def read_prompts(path: Path) -> Iterator[Prompt]:
    """Requests of a JSONL file: ``instruction``, and if they like ``id``, ``category`` and
    ``images`` (paths beside the file).

    Raises:
        InterloomError: naming the file, the record and the field.
    """
    for number, value in enumerate(read_lines(path)):
        record = Place(path, f"record {number}", value)
        names = record.get("images", list) if record.has("images") else []
        try:
            yield Prompt(
                id=record.get("id", str) if record.has("id") else f"{path.stem}/{number:06d}",
                instruction=record.get("instruction", str),
                references=tuple(record.read_image("images", str(name)) for name in names),
                category=record.get("category", str) if record.has("category") else "",
            )
        except ValueError as error:
            raise record.wrong("instruction", str(error)) from error
