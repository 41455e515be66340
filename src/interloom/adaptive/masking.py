"""Selective loss masking (SAIR §3.2): which spans of a story are learned, token by token.

``L = −Σ_{t∈O} log P(x_t | x_{<t}, c)``, where O depends on the mode:

=========================== ================================== ==============================
mode                        learned                            context only
=========================== ================================== ==============================
direct                      G1, E1
reflection, G_K passes      E_{K−1}, R_{K−1}, G_K, E_K         what came before
multi_step                  E1, all S_i, G_i, E_i              G1
=========================== ================================== ==============================

The end is always learned, the prompt never. So the model learns to see a failure, to say what to
do, and to succeed; it is never taught to fail. ``full`` learns everything after the prompt and is
what masking is compared with.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from interloom.adaptive.story import Span, Story
from interloom.records import Segment

Masking = Literal["selective", "full"]
IGNORED = -100
"""The label of a token that is context only."""


def learned_spans(story: Story, masking: Masking = "selective") -> list[bool]:
    """Whether each of ``story.spans()`` is learned."""
    return [_learned(story, span, masking) for span in story.spans()]


def _learned(story: Story, span: Span, masking: Masking) -> bool:
    if span.kind in ("prompt", "end"):
        return span.kind == "end"
    if masking == "full" or story.mode == "direct":
        return True
    if story.mode == "multi_step":
        return span.name != "G1"
    last = len(story.drafts)
    return span.name in (f"E{last - 1}", f"R{last - 1}", f"G{last}", f"E{last}")


@dataclass(frozen=True)
class MaskedTokens:
    """A story as the trainer takes it; both lists are of one length.

    ``spans`` says for each token which of the story's spans it belongs to.
    """

    input_ids: list[int]
    labels: list[int]
    spans: list[int]


def mask_tokens(
    story: Story,
    tokenise: Callable[[Sequence[Segment]], list[list[int]]],
    *,
    begin: Sequence[int],
    end: Sequence[int],
    masking: Masking = "selective",
) -> MaskedTokens:
    """Tokens and labels of a story; each span is tokenised by itself, so no token lies in two.

    Args:
        tokenise: gives the tokens of each segment, as ``UnifiedModel.tokens`` does.
        begin: tokens before everything; they are context.
        end: tokens that close the story.
    """
    spans = story.spans()
    pieces = [*tokenise([span.content for span in spans[:-1]]), list(end)]
    ids, labels, belongs = list(begin), [IGNORED] * len(begin), [0] * len(begin)
    for number, (piece, learn) in enumerate(
        zip(pieces, learned_spans(story, masking), strict=True)
    ):
        ids += piece
        labels += piece if learn else [IGNORED] * len(piece)
        belongs += [number] * len(piece)
    return MaskedTokens(ids, labels, belongs)
