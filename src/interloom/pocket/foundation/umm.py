"""The miniature unified model: a whole ``Emu3ForConditionalGeneration``, from scratch.

It learns to draw short captions, to carry out one edit at a time, and to say what a picture shows.
Captions name two things at most: so longer ones fail as dense prompts fail large models, by leaving
things out and mixing them up, and nobody makes them fail. It has seen no evaluation, reflection or
plan.
"""

# The libraries' own annotations are looser than their code (lazy exports, config as dict).
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false

from __future__ import annotations

import random
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
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
from interloom.pocket.foundation.umm_model import new_image_processor, new_umm, train_umm_tokenizer
from interloom.pocket.foundation.vq import codes_scene, scene_codes, train_vq
from interloom.pocket.language import KEEP, describe_edit, describe_scene
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
    steps=2000, learning_rate=2e-3, matrix_rate=1e-2, flat=0.55, weight_decay=0.01, average=0.998
)
BATCH = 16
GROUP = 4
"""Batches that are drawn together and sorted by length, so that little of a batch is padding."""
MAX_CAPTION = 2
"""Things in a caption at most."""
QUESTION = "describe the picture"
CHECKED = 24
"""Pictures per kind in an evaluation on the way."""


# -------------------------------------------------------------------------------- lessons


@dataclass(frozen=True)
class Turn:
    """What is said, with the picture it is said of, and the answer: a picture or a text."""

    text: str
    answer: Scene | str
    source: Scene | None = None


def _trained(scene: Scene) -> bool:
    return scene_split(scene) == "train"


def caption_turn(rng: random.Random) -> Turn:
    """A picture of one or two things, from its caption."""
    scene = random_scene(rng, rng.choice((1, 2, 2, 2)))
    if not _trained(scene):
        return caption_turn(rng)
    form = "canonical" if rng.random() < 0.8 else "paraphrased"
    return Turn(describe_scene(scene, form, rng), scene)


def edit_turn(rng: random.Random, scene: Scene) -> Turn | None:
    """One edit of a scene; ``None`` if the drawn one cannot be, or is held out."""
    operation = rng.choice(OPERATIONS)
    edit = random_edit(rng, scene, operation)
    if edit is None or not _trained(apply(scene, edit)):
        return None
    form = "canonical" if rng.random() < 0.7 else "paraphrased"
    said = describe_edit(edit, scene, form, rng)
    kept = f"; {KEEP}" if rng.random() < 0.3 else ""
    return Turn(said + kept, apply(scene, edit))


def describe_turn(scene: Scene, *, shown: bool) -> Turn:
    """What a picture shows, in reading order."""
    return Turn(QUESTION, describe_scene(scene), None if shown else scene)


def lesson(rng: random.Random) -> list[Turn]:
    """One talk: a caption, or a row of one to three edits, now and then with a description."""
    turns: list[Turn] = []
    if rng.random() < 0.45:
        turns.append(caption_turn(rng))
        if rng.random() < 0.6:
            return turns
    scene = turns[-1].answer if turns else random_scene(rng, rng.randint(0, 7))
    assert isinstance(scene, Scene)
    first = not turns
    if rng.random() < 0.12:
        return [*turns, describe_turn(scene, shown=not first)]
    wanted = len(turns) + rng.choice((1, 1, 2, 3))
    for _ in range(12):
        turn = edit_turn(rng, scene)
        if turn is not None:
            turns.append(Turn(turn.text, turn.answer, scene if first else None))
            assert isinstance(turn.answer, Scene)
            scene, first = turn.answer, False
        if len(turns) == wanted:
            break
    if turns and rng.random() < 0.15:
        turns.append(describe_turn(scene, shown=True))
    return turns or lesson(rng)


def to_tokens(turns: Sequence[Turn], stream: Stream) -> tuple[list[int], list[bool]]:
    """A talk's tokens and which of them are learned: the answers and the end."""
    ids, learned = [stream.bos], [False]

    def put(tokens: list[int], learn: bool) -> None:
        ids.extend(tokens)
        learned.extend([learn] * len(tokens))

    for turn in turns:
        put(_asked(turn.text, turn.source, stream), False)
        if isinstance(turn.answer, Scene):
            put(picture_tokens(turn.answer, stream), True)
        else:
            put(stream.text(f" {turn.answer}"), True)
    put([stream.eos], True)
    return ids, learned


def _asked(text: str, source: Scene | None, stream: Stream) -> list[int]:
    before, after = unified_prompt(text)
    assert isinstance(before, str) and isinstance(after, str)
    shown = [] if source is None else picture_tokens(source, stream)
    return [*stream.text(before), *shown, *stream.text(after)]


def picture_tokens(scene: Scene, stream: Stream) -> list[int]:
    """A scene as the picture tokenizer sees its picture."""
    return stream.picture(np.array(scene_codes(scene)).reshape(GRID, GRID))


# ------------------------------------------------------------------------------- training


def _loss(
    model: Emu3ForConditionalGeneration, rows: Sequence[tuple[list[int], list[bool]]], pad: int
) -> torch.Tensor:
    length = max(len(ids) for ids, _ in rows)
    ids = torch.full((len(rows), length), pad)
    learned = torch.zeros((len(rows), length), dtype=torch.bool)
    for i, (tokens, learn) in enumerate(rows):
        ids[i, : len(tokens)] = torch.tensor(tokens)
        learned[i, : len(tokens)] = torch.tensor(learn)
    # Padding stands on the right, where nothing that counts looks at it.
    states = model.model.text_model(input_ids=ids, use_cache=False).last_hidden_state
    states = states[:, :-1][learned[:, 1:]]
    return F.cross_entropy(model.lm_head(states), ids[:, 1:][learned[:, 1:]])


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
        rows = [to_tokens(lesson(python), stream) for _ in range(GROUP * BATCH)]
        return sorted(rows, key=lambda row: len(row[0]))

    def step_function(step: int, rng: np.random.Generator) -> tuple[torch.Tensor, Metrics]:
        number, part = divmod(step, GROUP)
        return _loss(model, group(number)[part * BATCH :][:BATCH], stream.pad), {}

    every = max(1, schedule.steps // 10)

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
    """Shares of pictures that are right in every cell, greedy, on fresh held-out scenes: captions
    of one to five things, each kind of edit, and descriptions word for word."""
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
    scenes = [random_scene(rng, rng.randint(0, 6)) for _ in range(count)]
    said = _descriptions(unified, scenes)
    right["describe"] = [
        text.strip() == describe_scene(scene) for text, scene in zip(said, scenes, strict=True)
    ]
    return {kind: sum(rights) / len(rights) for kind, rights in right.items()}


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
            return Turn(describe_edit(edit, scene), apply(scene, edit), scene)


def draw_turns(unified: UnifiedModel, turns: Sequence[Turn]) -> list[Scene | None]:
    """What the model draws for each turn, greedily, by its codes; ``None`` if it is no picture."""
    stream = unified.stream
    prompts = []
    for turn in turns:
        ids, _ = to_tokens([turn], stream)
        answer = picture_tokens(turn.answer, stream) if isinstance(turn.answer, Scene) else []
        prompts.append(ids[: len(ids) - 1 - len(answer)] + stream.header(unified.grid))
    tokens = len(stream.form(unified.grid)) - len(stream.header(unified.grid))
    made = unified.complete(prompts, [Limits(tokens=tokens)] * len(prompts))
    return [_scene(stream, completion.tokens) for completion in made]


def _scene(stream: Stream, tokens: Sequence[int]) -> Scene | None:
    try:
        return codes_scene(stream.codes(tokens).flatten().tolist())
    except StreamError:
        return None


def _descriptions(unified: UnifiedModel, scenes: Sequence[Scene]) -> list[str]:
    stream = unified.stream
    prompts = [[stream.bos, *_asked(QUESTION, scene, stream)] for scene in scenes]
    made = unified.complete(prompts, [Limits(tokens=80, images=0)] * len(prompts))
    return [stream.said(completion.tokens) for completion in made]
