"""The adaptive reasoner at inference: one call from requests to final pictures (SAIR §3).

The model writes a whole story by itself: it draws, evaluates, and by what it sees goes on with a
reflection, a plan, or not at all. A budget bounds how many pictures that may take.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from interloom.adaptive.story import (
    EVALUATION_END,
    PAUSES,
    TAGS,
    Block,
    Mode,
    Prompt,
    Story,
    StoryError,
    joined,
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
        images: at most so many, 1 or more; ``None`` sets no limit. When they are used up the story
            ends after the evaluation of the last one.
        reluctance: how much likelier (in nats) than each further picture the end is made: 0 leaves
            the choice of mode to the model, much ends every story after its first picture.

    Raises:
        ValueError: a budget of no picture at all.
    """

    images: int | None = None
    reluctance: float = 0.0

    def __post_init__(self) -> None:
        if self.images is not None and self.images < 1:
            raise ValueError("a budget of pictures is at least 1")


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
    cut_short: bool = False
    """Whether it was the budget that ended it: it would have gone on."""

    @property
    def images(self) -> tuple[bytes, ...]:
        """G1, G2, …"""
        return tuple(part for part in self.segments if isinstance(part, bytes))

    @property
    def final(self) -> bytes | None:
        """The last picture; ``None`` if nothing was drawn."""
        return self.images[-1] if self.images else None


@dataclass(eq=False)
class Writing:
    """A story that is being written (``AdaptiveReasoner.begin``, ``go_on``).

    Args:
        asked: the prompt's tokens.
        written: what was written after it, a picture's beginning that the prompt ended in included.
        segments: the same as text and pictures.
    """

    prompt: Prompt
    budget: Budget
    asked: list[int]
    written: list[int] = field(default_factory=list)
    segments: list[Segment] = field(default_factory=list)
    over: bool = False
    ended: bool = False
    """Whether it is over because the model, or the budget, brought it to an end; not cut off."""
    cut_short: bool = False

    @property
    def images(self) -> int:
        """Pictures so far."""
        return sum(isinstance(part, bytes) for part in self.segments)


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
        max_tokens: longest story; also, what the model's context has left after the prompt.
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
        asked = [self.unified.prompt(prompt.segments()) for prompt in prompts]
        limits = [self._limits(b, len(a)) for b, a in zip(budgets, asked, strict=True)]
        made = self.unified.complete(asked, limits, text=self.text, picture=self.picture, seed=seed)
        told = [self._told(p, b, c) for p, b, c in zip(prompts, budgets, made, strict=True)]
        return told, made

    # --- piece by piece

    def begin(self, prompts: Sequence[Prompt], budgets: Sequence[Budget]) -> list[Writing]:
        """Stories of which nothing is written yet; ``go_on`` writes them, any of them together."""
        return [
            Writing(prompt, budget, self.unified.prompt(prompt.segments()))
            for prompt, budget in zip(prompts, budgets, strict=True)
        ]

    def go_on(self, stories: Sequence[Writing], *, seed: int = 0) -> None:
        """Write every story on: one picture with its evaluation, and the reflection or sub-step
        that leads to the next, if there is to be one.

        Piece by piece a story comes out as ``reason`` writes it (greedily, but for rounding).

        Raises:
            InterloomError: out of memory.
        """
        unified, stream = self.unified, self.unified.stream
        pauses = [stream.text(tag)[-1] for tag in PAUSES]
        header = len(stream.header(unified.grid))
        asked, limits = [], []
        for story in stories:
            done = max(0, len(story.written) - header)  # the header is of the prompt's
            # What was begun stands in the prompt already, and in what was written too.
            asked.append([*story.asked, *story.written[header:]])
            limits.append(self._limits(story.budget, len(story.asked), story.images, done))
        made = unified.complete(
            asked, limits, text=self.text, picture=self.picture, seed=seed, pauses=pauses
        )
        for story, completion in zip(stories, made, strict=True):
            tokens, story.cut_short = self._within(story.budget, story.images, completion)
            story.written += tokens
            story.segments = joined([*story.segments, *self._segments(tokens)])
            paused = not completion.ended and bool(tokens) and tokens[-1] in pauses
            story.over, story.ended = not paused, completion.ended

    def told(self, story: Writing) -> Told:
        """What a story tells so far; before it is over it is cut off."""
        return _retold(story.prompt, story.segments, story.ended, story.cut_short)

    # --- in common

    def _limits(self, budget: Budget, asked: int, images: int = 0, tokens: int = 0) -> Limits:
        """What may still be written after a prompt of ``asked`` tokens, so many pictures and
        tokens; nothing goes beyond what the model can read."""
        stream = self.unified.stream
        room = min(self.max_tokens, self.unified.context - asked)
        return Limits(
            tokens=max(1, room - tokens),
            images=None if budget.images is None else budget.images - images,
            end_after=stream.text(EVALUATION_END)[-1],
            reluctance=budget.reluctance,
        )

    def _told(self, prompt: Prompt, budget: Budget, completion: Completion) -> Told:
        tokens, cut_short = self._within(budget, 0, completion)
        return _retold(prompt, self._segments(tokens), completion.ended, cut_short)

    def _within(
        self, budget: Budget, images: int, completion: Completion
    ) -> tuple[list[int], bool]:
        """The tokens that the budget allows, and whether the model would have gone on beyond it.

        Of a budget that is used up, the one token after the last evaluation only tells that.
        """
        stream, tokens = self.unified.stream, list(completion.tokens)
        after = stream.text(EVALUATION_END)[-1]
        made = images + tokens.count(stream.end)
        if budget.images is None or made < budget.images or tokens[-2:-1] != [after]:
            return tokens, False
        *kept, further = tokens
        return kept, further in [stream.text(tag)[0] for tag in GOES_ON]

    def _segments(self, tokens: Sequence[int]) -> list[Segment]:
        """What was written, without a picture that the limit cut off."""
        try:
            return self.unified.segments(tokens)
        except StreamError:
            stream = self.unified.stream
            last = len(tokens) - 1 - list(tokens)[::-1].index(stream.start)
            return self.unified.segments(tokens[:last])


def _retold(prompt: Prompt, segments: Sequence[Segment], ended: bool, cut_short: bool) -> Told:
    blocks, _ = read_blocks(segments)
    story, violation = None, None
    try:
        story = parse_story(prompt, segments, ended=ended)
    except StoryError as error:
        violation = error.violation
    return Told(prompt, tuple(segments), story, violation, _mode(blocks), cut_short)


def _mode(blocks: Sequence[Block]) -> Mode:
    tags = {block.tag for block in blocks}
    if any(tag.startswith("step_") for tag in tags):
        return "multi_step"
    return "reflection" if "failure_analysis" in tags else "direct"
