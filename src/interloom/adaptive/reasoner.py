"""The adaptive reasoner at inference: one call from requests to final pictures (SAIR §3).

The model writes a whole story by itself: it draws, evaluates, and by what it sees goes on with a
reflection, a plan, or not at all. A budget bounds how many pictures that may take.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from interloom.adaptive.story import (
    EVALUATION_END,
    TAGS,
    Block,
    Mode,
    Prompt,
    Story,
    StoryError,
    parse_story,
    read_blocks,
)
from interloom.backends.stream import GREEDY, Limits, Sampling, StreamError
from interloom.backends.unified import Completion, UnifiedModel
from interloom.records import Segment

GOES_ON = ("<failure_analysis>", *(tag for tag in TAGS if tag.startswith("<step_")))
"""What follows an evaluation if there are to be more pictures."""


@dataclass(frozen=True)
class Budget:
    """How many pictures a request may take.

    Args:
        images: at most so many; ``None`` sets no limit. When they are used up the story ends after
            the evaluation of the last one.
        reluctance: how much less likely (in nats) each further picture is made: 0 leaves the choice
            of mode to the model, much ends nearly every story after its first picture.
    """

    images: int | None = None
    reluctance: float = 0.0


@dataclass(frozen=True)
class Told:
    """What came of a request.

    ``story`` is ``None`` where the stream is no story, and ``violation`` then says why; pictures
    and mode are given all the same, as far as they can be seen.
    """

    prompt: Prompt
    segments: tuple[Segment, ...]
    story: Story | None
    violation: str | None
    mode: Mode

    @property
    def images(self) -> tuple[bytes, ...]:
        """G1, G2, …"""
        return tuple(part for part in self.segments if isinstance(part, bytes))

    @property
    def final(self) -> bytes | None:
        """The last picture; ``None`` if nothing was drawn."""
        return self.images[-1] if self.images else None


def add_story_tags(unified: UnifiedModel) -> int:
    """Make each tag of the story format one token, with an embedding to be trained; returns how
    many were new."""
    tokenizer = unified.tokenizer
    added = tokenizer.add_tokens([tag for tag in TAGS if len(unified.stream.text(tag)) > 1])
    if len(tokenizer) != unified.model.lm_head.out_features:
        unified.model.resize_token_embeddings(len(tokenizer))
    return int(added)


class AdaptiveReasoner:
    """A unified model that has learned stories.

    Args:
        text: how words are drawn.
        picture: how visual tokens are drawn.
        max_tokens: longest story.
    """

    def __init__(
        self,
        unified: UnifiedModel,
        *,
        text: Sampling = GREEDY,
        picture: Sampling = GREEDY,
        max_tokens: int = 1024,
    ) -> None:
        self.unified, self.text, self.picture = unified, text, picture
        self.max_tokens = max_tokens
        self.name = unified.name

    def reason(
        self,
        prompts: Sequence[Prompt],
        budgets: Sequence[Budget] | None = None,
        *,
        seed: int = 0,
    ) -> list[Told]:
        """Every request carried out, in order; each may have its own budget.

        Raises:
            ValueError: a budget of no picture at all.
            InterloomError: out of memory.
        """
        return self.reason_with_tokens(prompts, budgets, seed=seed)[0]

    def reason_with_tokens(
        self,
        prompts: Sequence[Prompt],
        budgets: Sequence[Budget] | None = None,
        *,
        seed: int = 0,
    ) -> tuple[list[Told], list[Completion]]:
        """The same, with the tokens as they were written, which RL learns from."""
        budgets = budgets or [Budget()] * len(prompts)
        if any(budget.images is not None and budget.images < 1 for budget in budgets):
            raise ValueError("a budget of pictures is at least 1")
        asked = [self.unified.prompt(prompt.segments()) for prompt in prompts]
        limits = [self._limits(budget) for budget in budgets]
        made = self.unified.complete(asked, limits, text=self.text, picture=self.picture, seed=seed)
        return [self._told(p, c) for p, c in zip(prompts, made, strict=True)], made

    def _limits(self, budget: Budget) -> Limits:
        stream = self.unified.stream
        return Limits(
            tokens=self.max_tokens,
            images=budget.images,
            end_after=stream.text(EVALUATION_END)[-1],
            reluctant=tuple(stream.text(tag)[0] for tag in GOES_ON) if budget.reluctance else (),
            reluctance=budget.reluctance,
        )

    def _told(self, prompt: Prompt, completion: Completion) -> Told:
        segments = self._segments(completion.tokens)
        blocks, _ = read_blocks(segments)
        story, violation = None, None
        try:
            story = parse_story(prompt, segments, ended=completion.ended)
        except StoryError as error:
            violation = error.violation
        return Told(prompt, tuple(segments), story, violation, _mode(blocks))

    def _segments(self, tokens: Sequence[int]) -> list[Segment]:
        """What was written, without a picture that the limit cut off."""
        try:
            return self.unified.segments(tokens)
        except StreamError:
            stream = self.unified.stream
            last = len(tokens) - 1 - list(tokens)[::-1].index(stream.start)
            return self.unified.segments(tokens[:last])


def _mode(blocks: Sequence[Block]) -> Mode:
    tags = {block.tag for block in blocks}
    if any(tag.startswith("step_") for tag in tags):
        return "multi_step"
    return "reflection" if "failure_analysis" in tags else "direct"
