"""The world to look at (``interloom pocket show``): contact sheets and one self-contained page."""

from __future__ import annotations

import base64
import math
import random
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

from jinja2 import Template
from PIL import Image, ImageDraw

from interloom.images import from_bytes, to_png
from interloom.pocket.foundation.shipped import load_generator
from interloom.pocket.goal import Goal
from interloom.pocket.language import correct, describe_edit, describe_scene
from interloom.pocket.measurements import edit_case, evaluation_scene
from interloom.pocket.render import render
from interloom.pocket.scene import OPERATIONS, Edit, Scene, apply
from interloom.pocket.verifier import judge
from interloom.records import Failure
from interloom.roles import GenerationJob

Shown = tuple[Image.Image, str, bool]


def write_show(data: Path, out: Path, seed: int = 0) -> Path:
    """Write ``index.html`` and the contact sheets; returns the page's path."""
    strong, weak = load_generator(data / "generator"), load_generator(data / "generator-weak")
    rng = random.Random(seed)
    out.mkdir(parents=True, exist_ok=True)
    parameters = sum(
        p.numel()
        for part in (strong.pipeline.transformer, strong.pipeline.vae, strong.pipeline.text_encoder)
        for p in part.parameters()
    )
    worlds = [
        (render(scene, rng.getrandbits(30)), f"drawn: {describe_scene(scene)}", True)
        for scene in (evaluation_scene(rng, count) for count in (1, 2, 3, 4, 5, 6, 7))
    ]
    captions = one_shots(strong, rng)
    edits = single_edits(strong, rng)
    failures = repairs(weak, rng)
    chain = composition(strong, rng)
    sections = [
        ("Worlds", "Scenes as the renderer draws them, with jitter.", [worlds]),
        ("One shot", "Captions of one to seven things: the more, the worse.", [captions]),
        ("One thing at a time", "The same crowded scene, composed by single edits.", [chain]),
        ("Edits", "Before and after, one of each kind.", edits),
        ("Failures and repairs", "Weak generator: before, failed try, correction.", failures),
    ]  # fmt: skip
    for name, pictures in (
        ("worlds", worlds), ("one-shot", captions), ("edits", [p for row in edits for p in row]),
        ("failures", [p for row in failures for p in row]), ("composition", chain),
    ):  # fmt: skip
        contact_sheet(pictures, columns=min(8, len(pictures))).save(out / f"{name}.png")
    encoded = [
        (
            title,
            text,
            [[(_base64(image), caption, good) for image, caption, good in row] for row in rows],
        )
        for title, text, rows in sections
    ]
    template = files("interloom.pocket").joinpath("text/show.html").read_text("utf-8")
    page = out / "index.html"
    page.write_text(Template(template).render(sections=encoded, million=f"{parameters / 1e6:.1f}"))
    return page


def contact_sheet(pictures: Sequence[Shown], columns: int, scale: int = 2) -> Image.Image:
    """Pictures with a caption and a green or red edge, in rows."""
    edge, text = 96 * scale, 30
    rows = math.ceil(len(pictures) / columns)
    sheet = Image.new("RGB", (columns * (edge + 8), rows * (edge + text + 8)), "white")
    draw = ImageDraw.Draw(sheet)
    for i, (picture, caption, good) in enumerate(pictures):
        x, y = (i % columns) * (edge + 8) + 4, (i // columns) * (edge + text + 8) + 4
        colour = (40, 162, 72) if good else (215, 38, 45)
        draw.rectangle((x - 3, y - 3, x + edge + 2, y + edge + 2), fill=colour)
        sheet.paste(picture.resize((edge, edge), Image.Resampling.NEAREST), (x, y))
        per_line = edge // 6
        draw.text((x, y + edge + 4), caption[:per_line], fill="black")
        draw.text((x, y + edge + 16), caption[per_line : 2 * per_line], fill="black")
    return sheet


def _base64(image: Image.Image) -> str:
    return base64.b64encode(to_png(image)).decode()


def _make(generator, jobs: list[GenerationJob]) -> list[Image.Image]:
    answers = generator.generate(jobs)
    return [from_bytes(answer) for answer in answers if not isinstance(answer, Failure)]


def one_shots(generator, rng: random.Random) -> list[Shown]:
    scenes = [evaluation_scene(rng, count) for count in range(1, 8)]
    jobs = [GenerationJob(prompt=describe_scene(scene), seed=i) for i, scene in enumerate(scenes)]
    return [
        (image, job.prompt, judge(image, Goal(scenes=(scene,))).success)
        for image, job, scene in zip(_make(generator, jobs), jobs, scenes, strict=True)
    ]


def composition(generator, rng: random.Random) -> list[Shown]:
    """A scene of six things, thing by thing."""
    target = evaluation_scene(rng, 6)
    things = list(target.sprites())
    scene = Scene.of(dict(things[:1]), target.background)
    prompt = describe_scene(scene)
    image = _make(generator, [GenerationJob(prompt=prompt, seed=1)])[0]
    shown = [(image, prompt, judge(image, Goal(scenes=(scene,))).success)]
    for cell, sprite in things[1:]:
        edit = Edit("add", at=cell, sprite=sprite)
        prompt = describe_edit(edit, scene)
        scene = apply(scene, edit)
        job = GenerationJob(prompt=prompt, seed=1, source=to_png(image))
        image = _make(generator, [job])[0]
        shown.append((image, prompt, judge(image, Goal(scenes=(scene,))).success))
    return shown


def single_edits(generator, rng: random.Random) -> list[list[Shown]]:
    """One edit of each operation, before and after."""
    cases = [edit_case(rng, operation, "canonical") for operation in OPERATIONS]
    jobs = [GenerationJob(prompt=c.prompt, seed=i, source=c.picture) for i, c in enumerate(cases)]
    return [
        [
            (from_bytes(case.picture), "drawn: before", True),
            (image, case.prompt, judge(image, case.goal).success),
        ]
        for case, image in zip(cases, _make(generator, jobs), strict=True)
    ]


def repairs(generator, rng: random.Random, wanted: int = 6) -> list[list[Shown]]:
    """Failed first tries of the weak generator, each followed by a correction."""
    rows: list[list[Shown]] = []
    for attempt in range(40):
        if len(rows) == wanted:
            break
        case = edit_case(rng, rng.choice(OPERATIONS), "paraphrased")
        first = _make(
            generator, [GenerationJob(prompt=case.prompt, seed=attempt, source=case.picture)]
        )[0]
        if judge(first, case.goal).success:
            continue
        better = correct(case.edit, case.before, "state_keep")
        second = _make(
            generator, [GenerationJob(prompt=better, seed=attempt, source=case.picture)]
        )[0]
        rows.append(
            [
                (from_bytes(case.picture), "drawn: before", True),
                (first, case.prompt, False),
                (second, better, judge(second, case.goal).success),
            ]
        )
    return rows
