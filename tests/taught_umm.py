"""The shipped unified model after it was taught a few stories by heart: seconds of real training.

So it draws, judges itself, reflects and works step by step as a trained one does, each mode at a
word, and what it answers is known.
"""

from __future__ import annotations

from pathlib import Path

import torch

from interloom import images
from interloom.adaptive.masking import mask_tokens
from interloom.adaptive.reasoner import AdaptiveReasoner, add_story_tags
from interloom.adaptive.story import Draft, Prompt, Round, Story, SubStep
from interloom.backends.unified import UnifiedModel
from interloom.pocket.render import render
from interloom.pocket.scene import Scene, Sprite
from interloom.records import Evaluation, Reflection

SHIPPED = Path(__file__).parents[1] / "data/umm"
STEPS, RATE = 200, 3e-3
SUN, CUP, TREE = Sprite("red", "sun"), Sprite("blue", "cup"), Sprite("green", "tree")
DIRECT = "a red sun at the center"
REFLECTION = "a red sun at the top left, a blue cup at the center"
MULTI_STEP = f"{REFLECTION}, a green tree at the bottom right"
EDIT = "add a blue cup at the center"
ANALYSIS, REPAIR = "the blue cup is missing at the center", "add a blue cup at the center"
STEP_TEXTS = ("add a blue cup at the center", "add a green tree at the bottom right")


def picture(things: dict[int, Sprite]) -> bytes:
    return images.to_png(render(Scene.of(things)))


def _seen(reasoning: str, score: int) -> Evaluation:
    return Evaluation(
        reasoning=reasoning, instruction=score, consistency=5, quality=5, knowledge=score
    )


GOOD, BAD = _seen("all as it should be", 5), _seen("the blue cup is missing", 2)
ONE, TWO, THREE = {0: SUN}, {0: SUN, 4: CUP}, {0: SUN, 4: CUP, 8: TREE}


def stories() -> list[Story]:
    """One of each mode, and one that goes on from a picture."""
    first = Draft(image=picture(ONE), evaluation=BAD)
    repaired = Round(
        image=picture(TWO), evaluation=GOOD,
        reflection=Reflection(
            kind="under-editing", failure_analysis=ANALYSIS, improvement_plan=REPAIR
        ),
    )  # fmt: skip
    steps = tuple(
        SubStep(instruction=text, image=picture(things), evaluation=GOOD)
        for text, things in zip(STEP_TEXTS, (TWO, THREE), strict=True)
    )
    return [
        Story(
            prompt=Prompt(id="1", instruction=DIRECT),
            first=Draft(image=picture({4: SUN}), evaluation=GOOD),
        ),
        Story(prompt=Prompt(id="2", instruction=REFLECTION), first=first, rounds=(repaired,)),
        Story(prompt=Prompt(id="3", instruction=MULTI_STEP), first=first, steps=steps),
        Story(
            prompt=Prompt(id="4", instruction=EDIT, references=(picture(ONE),)),
            first=Draft(image=picture(TWO), evaluation=GOOD),
        ),
    ]


def teach() -> UnifiedModel:
    """Train until the stories are known by heart; the same on every machine but for rounding."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    unified = UnifiedModel.from_pretrained(SHIPPED, image_pixels=96)
    add_story_tags(unified)
    told, stream = stories(), unified.stream
    rows = [
        mask_tokens(one, unified.tokens, begin=[stream.bos], end=[stream.eos], masking="full")
        for one in told
    ]
    longest = max(len(row.input_ids) for row in rows)
    ids = torch.tensor([r.input_ids + [stream.pad] * (longest - len(r.input_ids)) for r in rows])
    labels = torch.tensor([r.labels + [-100] * (longest - len(r.labels)) for r in rows])
    model = unified.model.train()
    model.model.vqmodel.requires_grad_(False)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=RATE)
    for _ in range(STEPS):
        loss = model(input_ids=ids, labels=labels, attention_mask=(ids != stream.pad).long()).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if loss.item() < 0.005:
            break
    model.eval()
    prompts = [one.prompt for one in told]
    modes = [one.mode for one in AdaptiveReasoner(unified, max_tokens=320).reason(prompts)]
    assert modes == [one.mode for one in told], f"after {STEPS} steps: {loss.item():.3f}, {modes}"
    return unified


def build(folder: Path) -> Path:
    """The same as a model folder."""
    teach().save(folder)
    return folder
