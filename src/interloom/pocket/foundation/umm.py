"""The miniature unified model: a whole ``Emu3ForConditionalGeneration``, from scratch.

What it learns is in ``umm_lessons``.
"""

# The libraries' own annotations are looser than their code (lazy exports, config as dict).
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false

from __future__ import annotations

import random
import shutil
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKLFlux2
from torch.nn import functional as F
from transformers import Emu3ForConditionalGeneration

from interloom.backends.stream import Limits, Stream, StreamError
from interloom.backends.unified import UnifiedModel
from interloom.dialogue import unified_prompt
from interloom.pocket.foundation.training import (
    Average,
    Metrics,
    Report,
    Schedule,
    prefixed,
    train,
)
from interloom.pocket.foundation.umm_lessons import (
    ASKED,
    FIRST,
    IS_IT_SO,
    LESSONS,
    PUT_RIGHT,
    Lesson,
    Talk,
    Turn,
    again,
    checking,
    describing,
    draw,
    listing,
    looking,
    meaning,
    one_by_one,
)
from interloom.pocket.foundation.umm_model import new_image_processor, new_umm, train_umm_tokenizer
from interloom.pocket.foundation.vq import codes_scene, scene_codes, train_vq
from interloom.pocket.language import describe_edit, describe_scene
from interloom.pocket.scene import (
    GRID,
    OPERATIONS,
    Edit,
    Scene,
    apply,
    random_edit,
    random_scene,
    scene_split,
)

SCHEDULE = Schedule(
    steps=12000, learning_rate=2e-3, matrix_rate=1e-2, flat=0.55, weight_decay=0.01, average=0.998
)
BATCH = 16
FIRST_SHARE = 0.25
"""Of the steps, how many are for ``umm_lessons.FIRST``."""
PICTURE_WEIGHT = 3.0
"""How much a visual token counts against a word: talks have few pictures and many words."""
GROUP = 4
"""Batches that are drawn together and sorted by length, so that little of a batch is padding."""
CHECKED = 24
"""Pictures per kind in an evaluation on the way."""


# --------------------------------------------------------------------------------- tokens


def to_tokens(turns: Sequence[Turn], stream: Stream) -> tuple[list[int], list[bool]]:
    """A talk's tokens and which of them are learned: the answers and the end."""
    ids, learned = [stream.bos], [False]

    def put(tokens: list[int], learn: bool) -> None:
        ids.extend(tokens)
        learned.extend([learn] * len(tokens))

    for turn in turns:
        put(_asked(turn, stream), False)
        if isinstance(turn.answer, Scene):
            put(picture_tokens(turn.answer, stream), turn.learned)
        else:
            put(stream.text(f" {turn.answer}"), turn.learned)
    put([stream.eos], True)
    return ids, learned


def _asked(turn: Turn, stream: Stream) -> list[int]:
    before, after = unified_prompt(turn.text)
    assert isinstance(before, str) and isinstance(after, str)
    shown = [token for scene in turn.sources for token in picture_tokens(scene, stream)]
    return [*stream.text(before), *shown, *stream.text(after)]


def picture_tokens(scene: Scene, stream: Stream) -> list[int]:
    """A scene as the picture tokenizer sees its picture."""
    return stream.picture(np.array(scene_codes(scene)).reshape(GRID, GRID))


# ------------------------------------------------------------------------------- training


def _loss(
    model: Emu3ForConditionalGeneration,
    rows: Sequence[tuple[list[int], list[bool]]],
    stream: Stream,
) -> torch.Tensor:
    length = max(len(ids) for ids, _ in rows)
    ids = torch.full((len(rows), length), stream.pad)
    learned = torch.zeros((len(rows), length), dtype=torch.bool)
    for i, (tokens, learn) in enumerate(rows):
        ids[i, : len(tokens)] = torch.tensor(tokens)
        learned[i, : len(tokens)] = torch.tensor(learn)
    # Padding stands on the right, where nothing that counts looks at it.
    states = model.model.text_model(input_ids=ids, use_cache=False).last_hidden_state
    states, wanted = states[:, :-1][learned[:, 1:]], ids[:, 1:][learned[:, 1:]]
    losses = F.cross_entropy(model.lm_head(states), wanted, reduction="none")
    weights = torch.where(torch.isin(wanted, stream.visual), PICTURE_WEIGHT, 1.0)
    return (losses * weights).sum() / weights.sum()


def train_umm(
    autoencoder: AutoencoderKLFlux2,
    out: Path,
    work: Path,
    seed: int,
    report: Report,
    scale: float = 1.0,
) -> None:
    """Train from scratch and write the folder (model, tokenizer, image processor) whole.

    ``scale`` is a factor on the steps of its three parts: encoder, decoder, language model.
    """
    vq = train_vq(autoencoder, work, seed, prefixed(report, "vq"), scale)
    tokenizer = train_umm_tokenizer()
    torch.manual_seed(seed)
    model = new_umm(tokenizer, vq)
    stream, schedule = Stream(tokenizer, model), SCHEDULE.scaled(scale)
    unified = UnifiedModel(model, tokenizer, new_image_processor(), name="umm", batch_size=64)

    @lru_cache(maxsize=1)
    def group(number: int) -> list[tuple[list[int], list[bool]]]:
        python = random.Random(f"{seed}:{number}")
        lessons = FIRST if number * GROUP < FIRST_SHARE * schedule.steps else LESSONS
        rows = [to_tokens(draw(python, lessons), stream) for _ in range(GROUP * BATCH)]
        return sorted(rows, key=lambda row: len(row[0]))

    def step_function(step: int, rng: np.random.Generator) -> tuple[torch.Tensor, Metrics]:
        number, part = divmod(step, GROUP)
        return _loss(model, group(number)[part * BATCH :][:BATCH], stream), {}

    every = -(-schedule.steps // 6)

    def check(step: int, average: Average) -> None:
        if step % every:
            return
        average.swap()
        model.eval()
        report(step, umm_figures(unified, seed=seed + 7, count=CHECKED))
        average.swap()

    train(
        "umm", {"text_model": model.model.text_model}, step_function, schedule, work=work,
        seed=seed, report=report, on_step=check, mixed=True, checkpoint_every=100,
    )  # fmt: skip
    aside = out.with_name(out.name + ".part")
    shutil.rmtree(aside, ignore_errors=True)
    # Half the bytes, and the same pictures: what is drawn does not hang on the last digits.
    model.half()
    unified.save(aside)
    aside.rename(out)


# ------------------------------------------------------------------------------ measuring


def umm_figures(unified: UnifiedModel, seed: int, count: int) -> dict[str, float]:
    """Shares of pictures that are right in every cell, greedy, on fresh held-out scenes (captions
    of one to five things, each kind of edit), and of answers right word for word, on fresh talks.
    """
    rng = random.Random(seed)
    cases: list[tuple[str, Turn]] = []
    for things in range(1, 6):
        for _ in range(count):
            scene = _held_out(rng, things)
            cases.append((f"caption_{things}", Turn(describe_scene(scene, rng=rng), scene)))
    for operation in OPERATIONS:
        cases += [(operation, _held_out_edit(rng, operation)) for _ in range(count)]
    drawn = draw_turns(unified, [turn for _, turn in cases])
    right: dict[str, list[bool]] = {}
    for (kind, turn), scene in zip(cases, drawn, strict=True):
        right.setdefault(kind, []).append(scene == turn.answer)
    talks = [(kind, _talk(rng, kind)) for kind in SPOKEN for _ in range(count)]
    answers = _answers(unified, [talk for _, talk in talks])
    for (kind, talk), answer in zip(talks, answers, strict=True):
        right.setdefault(kind, []).append(answer.strip() == talk[-1].answer)
    return {kind: sum(rights) / len(rights) for kind, rights in right.items()}


SPOKEN: dict[str, tuple[Lesson, str]] = {
    "again": (again, ""), "list": (listing, ""), "look": (looking, ""),
    "describe": (describing, ""), "meaning": (meaning, ""), "one_by_one": (one_by_one, ""),
    "check": (checking, IS_IT_SO), "asked": (checking, ASKED), "put_right": (checking, PUT_RIGHT),
}  # fmt: skip
"""Lessons that are measured by their last answer, or by that to one question."""


def _talk(rng: random.Random, kind: str) -> Talk:
    """A talk of the kind, up to the answer that is measured."""
    lesson, question = SPOKEN[kind]
    while True:
        talk = lesson(rng)
        if not question:
            return talk
        for number, turn in enumerate(talk, 1):
            if turn.text == question:
                return talk[:number]


def _held_out(rng: random.Random, things: int) -> Scene:
    while True:
        scene = random_scene(rng, things)
        if things < 2 or scene_split(scene) == "evaluation":
            return scene


def _held_out_edit(rng: random.Random, operation: str) -> Turn:
    while True:
        scene = random_scene(rng, rng.randint(1, 6))
        edit: Edit | None = random_edit(rng, scene, operation)
        if edit is not None:
            return Turn(describe_edit(edit, scene), apply(scene, edit), (scene,))


def draw_turns(unified: UnifiedModel, turns: Sequence[Turn]) -> list[Scene | None]:
    """What the model draws for each turn, greedily, by its codes; ``None`` if it is no picture."""
    stream, header = unified.stream, unified.stream.header(unified.grid)
    prompts = [[stream.bos, *_asked(turn, stream), *header] for turn in turns]
    tokens = len(stream.form(unified.grid)) - len(header)
    made = unified.complete(prompts, [Limits(tokens=tokens)] * len(prompts))
    return [_scene(stream, completion.tokens) for completion in made]


def _scene(stream: Stream, tokens: Sequence[int]) -> Scene | None:
    try:
        return codes_scene(stream.codes(tokens).flatten().tolist())
    except StreamError:
        return None


def _answers(unified: UnifiedModel, talks: Sequence[Talk]) -> list[str]:
    """What the model says at the end of each talk, whose last answer it is not shown."""
    stream = unified.stream
    prompts = []
    for talk in talks:
        *before, last = talk
        told, _ = to_tokens(before, stream)
        prompts.append([*told[:-1], *_asked(last, stream)])
    made = unified.complete(prompts, [Limits(tokens=160, images=0)] * len(prompts))
    return [stream.said(completion.tokens) for completion in made]
