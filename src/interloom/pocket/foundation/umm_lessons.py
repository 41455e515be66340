"""What the miniature unified model learns before it hears of stories.

It draws short captions and carries out one edit at a time: so longer ones fail as dense prompts
fail large models, by leaving things out and mixing them up, and nobody makes them fail. And it
talks about pictures: what is seen in them, what an instruction wants, whether a picture is as it
was asked for and which orders would put it right. It has seen no score, no failure analysis, no
mark of a story, and never had to choose how to go on.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from interloom.pocket import wishes
from interloom.pocket.analysis import changes, checks, seen_names
from interloom.pocket.language import (
    KEEP,
    MeaningError,
    describe_edit,
    describe_scene,
    numbered,
)
from interloom.pocket.scene import (
    BACKGROUNDS,
    CELLS,
    COLOURS,
    KINDS,
    OPERATIONS,
    POSITIONS,
    Scene,
    Sprite,
    apply,
    random_edit,
    random_scene,
    random_sprite,
    scene_split,
)
from interloom.pocket.several import understand_all

MAX_CAPTION = 2
"""Things in a caption that is drawn, at most."""
DESCRIBE, IS_IT_SO, ASKED, PUT_RIGHT = (
    "describe the picture", "is it so", "what was asked", "put it right",
)  # fmt: skip


@dataclass(frozen=True)
class Turn:
    """What is said, with the pictures it is said of, and the answer: a picture or a text."""

    text: str
    answer: Scene | str
    sources: tuple[Scene, ...] = ()
    learned: bool = True
    """Whether the answer is learned, or only there to be talked about."""


Talk = list[Turn]
Lesson = Callable[[random.Random], Talk]


# -------------------------------------------------------------------------------- drawing


def _trained(scene: Scene) -> bool:
    return scene_split(scene) == "train"


def _caption(rng: random.Random) -> Turn:
    scene = random_scene(rng, rng.choice((1, 2, 2, 2)))
    if not _trained(scene):
        return _caption(rng)
    form = "canonical" if rng.random() < 0.8 else "paraphrased"
    return Turn(describe_scene(scene, form, rng), scene)


def _edit(rng: random.Random, scene: Scene) -> Turn | None:
    """One edit of a scene; ``None`` if the drawn one cannot be, or is held out."""
    edit = random_edit(rng, scene, rng.choice((*OPERATIONS, "swap")))
    if edit is None or not _trained(apply(scene, edit)):
        return None
    form = "canonical" if rng.random() < 0.7 else "paraphrased"
    said = describe_edit(edit, scene, form, rng)
    kept = f"; {KEEP}" if rng.random() < 0.3 else ""
    return Turn(said + kept, apply(scene, edit))


def drawing(rng: random.Random) -> Talk:
    """A caption of one or two things, or a row of one to three edits, or both."""
    turns: Talk = []
    if rng.random() < 0.45:
        turns.append(_caption(rng))
        if rng.random() < 0.6:
            return turns
    scene = turns[-1].answer if turns else random_scene(rng, rng.randint(0, 7))
    first = not turns
    wanted = len(turns) + rng.choice((1, 1, 2, 3))
    for _ in range(12):
        assert isinstance(scene, Scene)
        turn = _edit(rng, scene)
        if turn is not None:
            turns.append(replace(turn, sources=(scene,) if first else ()))
            scene, first = turn.answer, False
        if len(turns) == wanted:
            break
    return turns or drawing(rng)


# ------------------------------------------------------------------------------- speaking


def describing(rng: random.Random) -> Talk:
    """What a picture shows, in reading order."""
    scene = random_scene(rng, rng.randint(0, 7))
    return [Turn(DESCRIBE, describe_scene(scene), (scene,))]


def looking(rng: random.Random) -> Talk:
    """What some places hold."""
    scene = random_scene(rng, rng.randint(1, 7))
    cells = rng.sample(range(CELLS), rng.randint(1, 5))
    asked = ", ".join(f"the {POSITIONS[cell]}" for cell in cells)
    said = "; ".join(f"the {POSITIONS[c]} shows {scene.cells[c] or 'nothing'}" for c in cells)
    return [Turn(f"what is at {asked}", said, (scene,))]


WORDS = ("the", "a", "at", "to", "with", "add", "remove", "make", *COLOURS, *KINDS, *POSITIONS)


def again(rng: random.Random) -> Talk:
    """Words in no order, word for word: nothing but copying gets them right.

    Now and then a picture comes between.
    """
    words = ", ".join(
        " ".join(rng.choices(WORDS, k=rng.randint(1, 6))) for _ in range(rng.randint(1, 4))
    )
    if rng.random() < 0.5:
        return [Turn(f"say it again: {words}", words)]
    shown = random_scene(rng, rng.randint(0, 7))
    return [Turn(words, shown, learned=False), Turn(ASKED, words)]


def listing(rng: random.Random) -> Talk:
    """What every place holds."""
    scene = random_scene(rng, rng.randint(0, 7))
    *cells, sky = seen_names(scene)
    said = [f"{name} at the {place}" for name, place in zip(cells, POSITIONS, strict=True)]
    return [Turn("list the cells", "; ".join([*said, f"background {sky}"]), (scene,))]


@dataclass(frozen=True)
class Wanted:
    """A wish and the scene that fulfils it."""

    text: str
    scenes: tuple[Scene, ...]
    target: Scene

    @property
    def before(self) -> Scene | None:
        return self.scenes[-1] if self.scenes else None


CAPTIONS = wishes.picture((1, 2, 3, 3, 4, 4, 5, 6))
WISHES: Mapping[wishes.Writer, float] = {
    CAPTIONS: 0.3,
    wishes.orders(OPERATIONS, 3): 0.35,
    wishes.all_in_one_colour: 0.03,
    wishes.riddle(None): 0.1,
    wishes.rule("temporal", whole_scene=False, side=None): 0.04,
    wishes.rule("causal", whole_scene=False, side=None): 0.04,
    wishes.rule("logical", whole_scene=False, side=None): 0.02,
    wishes.rule("spatial", whole_scene=False, side=None): 0.02,
    wishes.rule("spatial", whole_scene=True, side=None): 0.02,
    wishes.combine("subject"): 0.03,
    wishes.combine("background"): 0.02,
    wishes.combine("merge"): 0.03,
}
"""What is talked about, and how often. Facts and rules are those of both sides: a large model has
read of them too, before anyone fine-tunes it."""


def wanted(rng: random.Random) -> Wanted:
    """A wish whose result is on the training side."""
    while True:
        wish = rng.choices(list(WISHES), list(WISHES.values()))[0](rng)
        if wish is None:
            continue
        text, scenes = wish
        try:
            goal = understand_all(text, scenes).goal
        except MeaningError:
            continue
        target = goal.nearest(goal.before or Scene())
        if _trained(target):
            return Wanted(text, scenes, target)


def meaning(rng: random.Random) -> Talk:
    """What an instruction wants to see, in the order in which it names the places."""
    wish = wanted(rng)
    seen = "; ".join(change.wish for change in changes(wish.text, wish.before, wish.target))
    return [Turn(f"what will be seen: {wish.text}", seen, wish.scenes)]


def one_by_one(rng: random.Random) -> Talk:
    """The things of a caption, or orders however they are worded, numbered and in plain words."""
    wish = CAPTIONS(rng)
    if rng.random() < 0.5 and wish is not None:
        return [Turn(f"one by one: {wish[0]}", numbered(wish[0].split(", ")))]
    start = scene = random_scene(rng, rng.randint(2, 6))
    said, plain = [], []
    for _ in range(rng.choice((1, 2, 2, 3, 3))):
        edit = random_edit(rng, scene, rng.choice(OPERATIONS))
        if edit is None:
            continue
        said.append(describe_edit(edit, scene, rng.choice(("canonical", "paraphrased")), rng))
        plain.append(describe_edit(edit, scene))
        scene = apply(scene, edit)
    if not said:
        return one_by_one(rng)
    return [Turn(f"one by one: {'; '.join(said)}", numbered(plain), (start,))]


def checking(rng: random.Random) -> Talk:
    """Something is asked for, and a picture comes that may be wrong: is it so?

    The picture is not learned. Now and then it is also asked what was asked for, word for word, or
    what would put it right.
    """
    wish = wanted(rng)
    shown = _attempt(rng, wish)
    found = checks(wish.text, wish.before, wish.target, seen_names(shown))
    talk = [
        Turn(wish.text, shown, wish.scenes, learned=False),
        Turn(IS_IT_SO, "; ".join(map(str, found))),
    ]
    roll = rng.random()
    if roll < 0.15:
        talk.append(Turn(ASKED, wish.text))
    elif roll < 0.5:
        orders = "; ".join(check.order for check in found if not check.right)
        talk.append(Turn(PUT_RIGHT, orders or "nothing"))
    return talk


def _attempt(rng: random.Random, wish: Wanted) -> Scene:
    """What somebody may have drawn: a third as wished; in others some of it was not done or done
    otherwise, or something else was changed."""
    scene, start = wish.target, wish.before or Scene()
    odds = rng.choice((0.0, 0.4, 0.8))
    asked = start.difference(wish.target)
    for cell in asked:
        if rng.random() < odds:
            others = [start.cells[cell], _near(rng, scene.cells[cell])]
            others += [wish.target.cells[rng.choice(asked)]]
            scene = scene.with_cell(cell, rng.choice(others))
    if rng.random() < 0.25 * odds:
        cell = rng.randrange(CELLS)
        scene = scene.with_cell(cell, _near(rng, scene.cells[cell]))
    if rng.random() < 0.3 * odds:
        sky = start.background if rng.random() < 0.7 else rng.choice(tuple(BACKGROUNDS))
        scene = replace(scene, background=sky)
    return scene


def _near(rng: random.Random, sprite: Sprite | None) -> Sprite | None:
    """Something like it: another colour, another kind, nothing, or anything at all."""
    if sprite is None:
        return random_sprite(rng)
    roll = rng.random()
    if roll < 0.35:
        return Sprite(rng.choice(tuple(COLOURS)), sprite.kind)
    if roll < 0.6:
        return Sprite(sprite.colour, rng.choice(KINDS))
    return None if roll < 0.85 else random_sprite(rng)


FIRST: Mapping[Lesson, float] = {drawing: 0.5, listing: 0.1, looking: 0.2, again: 0.2}
"""What is learned first: which place a visual token is at, and to copy. All else rests on these."""
LESSONS: Mapping[Lesson, float] = {
    drawing: 0.37,
    again: 0.03,
    listing: 0.03,
    describing: 0.03,
    looking: 0.04,
    meaning: 0.14,
    checking: 0.28,
    one_by_one: 0.08,
}
"""What is learned then, and how often."""


def draw(rng: random.Random, lessons: Mapping[Lesson, float] = LESSONS) -> Talk:
    """One talk of a kind drawn by weight."""
    return rng.choices(list(lessons), list(lessons.values()))[0](rng)
