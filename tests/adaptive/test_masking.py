from __future__ import annotations

import pytest
from hypothesis import given
from sample_stories import direct, multi_step, reflection, stories

from interloom.adaptive.masking import IGNORED, learned_spans, mask_tokens
from interloom.adaptive.story import Story


def learned(story: Story, masking="selective") -> list[str]:
    flags = learned_spans(story, masking)
    return [s.name for s, learn in zip(story.spans(), flags, strict=True) if learn]


@pytest.mark.parametrize(
    ("story", "names"),
    [
        (direct(), "G1 E1 end"),
        (reflection(1), "E1 R1 G2 E2 end"),
        (reflection(2), "E2 R2 G3 E3 end"),
        (reflection(3), "E3 R3 G4 E4 end"),
        (multi_step(2), "E1 S1 G2 E2 S2 G3 E3 end"),
        (multi_step(5), "E1 S1 G2 E2 S2 G3 E3 S3 G4 E4 S4 G5 E5 S5 G6 E6 end"),
    ],
)
def test_the_mask_table(story, names):
    assert learned(story) == names.split()


@given(stories)
def test_full_loss_learns_all_but_the_prompt(story: Story):
    kinds = {
        span.kind
        for span, learn in zip(story.spans(), learned_spans(story, "full"), strict=True)
        if not learn
    }
    assert kinds == {"prompt"}


@given(stories)
def test_failures_are_never_learned_and_successes_and_the_last_diagnosis_always(story: Story):
    names, last = learned(story), len(story.drafts)
    if story.mode == "reflection":
        assert not set(names) & {f"G{i}" for i in range(1, last)}
        assert {f"G{last}", f"E{last}", f"R{last - 1}", f"E{last - 1}"} <= set(names)
        assert not set(names) & {f"R{i}" for i in range(1, last - 1)}
    if story.mode == "multi_step":
        assert "G1" not in names and "E1" in names
        assert {f"G{i}" for i in range(2, last + 1)} <= set(names)
        assert {f"S{i}" for i in range(1, last)} <= set(names)
    assert f"G{last}" in names and "end" in names and "prompt" not in names


def spell(segments):
    """One token per byte."""
    return [list(s.encode() if isinstance(s, str) else s) for s in segments]


@given(stories)
def test_labels_agree_with_the_spans_token_by_token(story: Story):
    masked = mask_tokens(story, spell, begin=[300, 301], end=[302])
    spans, flags = story.spans(), learned_spans(story)
    assert len(masked.input_ids) == len(masked.labels) == len(masked.spans)
    assert masked.input_ids[:2] == [300, 301] and masked.labels[:2] == [IGNORED] * 2
    assert masked.input_ids[-1] == masked.labels[-1] == 302
    for token, label, span in list(zip(masked.input_ids, masked.labels, masked.spans, strict=True))[
        2:
    ]:
        assert label == (token if flags[span] else IGNORED)
    for number, span in enumerate(spans[:-1]):
        tokens = [
            token
            for token, belongs in list(zip(masked.input_ids, masked.spans, strict=True))[2:]
            if belongs == number
        ]
        assert tokens == spell([span.content])[0]
