"""An untrained model writes no stories, yet pictures, budgets and violations hold all the same."""

from __future__ import annotations

import pytest
import tiny_umm as builder
import torch
from sample_stories import PROMPT, direct, multi_step, reflection

from interloom import images
from interloom.adaptive import measure
from interloom.adaptive.reasoner import AdaptiveReasoner, Budget, Told, add_story_tags
from interloom.adaptive.story import TAGS, Prompt, Story
from interloom.backends.pocket_analyzer import PocketAnalyzer
from interloom.backends.stream import Limits, Sampling, SpanConstraint
from interloom.backends.unified import Completion, UnifiedModel
from interloom.pocket.render import render
from interloom.pocket.scene import Scene, Sprite
from interloom.records import Evaluation, Failure, Thresholds

STRICT = Thresholds(instruction=5, consistency=5, quality=3, knowledge=3)


@pytest.fixture(scope="module")
def unified() -> UnifiedModel:
    unified = builder.new()
    add_story_tags(unified)
    return unified


def test_tags_become_tokens_and_are_read_back(unified):
    for tag in TAGS:
        assert len(unified.stream.text(tag)) == 1
        assert unified.tokenizer.decode(unified.stream.text(tag)) == tag
    vocabulary = unified.model.config.text_config.vocab_size
    assert vocabulary == len(unified.tokenizer) == unified.model.lm_head.weight.shape[0]


@pytest.mark.parametrize("story", [direct(), reflection(2), multi_step(2)])
def test_a_written_story_is_told(unified, story: Story):
    """What a model would write token by token comes back as the story that it is."""
    reasoner = AdaptiveReasoner(unified)
    tokens = [t for part in unified.tokens(story.segments()) for t in part]
    told = reasoner._told(story.prompt, Budget(), Completion(tuple(tokens), ended=True))
    assert told.violation is None and told.story is not None
    assert told.mode == story.mode == told.story.mode
    assert len(told.images) == len(story.images) and told.final == told.images[-1]
    assert [d.evaluation for d in told.story.drafts] == [d.evaluation for d in story.drafts]
    cut = reasoner._told(story.prompt, Budget(), Completion(tuple(tokens), ended=False))
    assert cut.story is None and cut.violation == "cut-off" and cut.mode == story.mode


def test_budgets_bound_the_pictures_of_each_request(unified):
    reasoner = AdaptiveReasoner(unified, text=Sampling(1.0), picture=Sampling(1.0), max_tokens=120)
    told = reasoner.reason([PROMPT] * 3, [Budget(1), Budget(2), Budget()], seed=5)
    assert [len(one.images) <= most for one, most in zip(told, (1, 2, 99), strict=True)] == [
        True
    ] * 3
    assert all(len(one.images) >= 1 for one in told), "a story begins with a picture"
    assert all(images.size(one.final or b"") == (96, 96) for one in told)
    assert {one.story for one in told} == {None} and all(one.violation for one in told)
    with pytest.raises(ValueError, match="at least 1"):
        Budget(0)


def test_a_picture_that_the_limit_cuts_off_is_left_out(unified):
    told = AdaptiveReasoner(unified, max_tokens=6).reason([PROMPT])[0]
    assert told.images == () and told.violation == "no-image" and told.final is None


def test_reluctance_makes_going_on_less_likely(unified):
    stream, tokens = unified.stream, len(unified.tokenizer)
    reasoner = AdaptiveReasoner(unified)
    dear = reasoner._limits(Budget(reluctance=3.0), 20)
    assert dear.tokens == reasoner.max_tokens
    assert reasoner._limits(Budget(), unified.context - 50, tokens=20).tokens == 30
    constraint = SpanConstraint(
        stream, unified.grid, tokens, 1, [dear, Limits(9)],
        text=Sampling(1.0), picture=Sampling(1.0),
    )  # fmt: skip
    ids = torch.tensor([[stream.bos, *stream.text("</evaluate>")]] * 2)
    shaped = constraint(ids, torch.zeros(2, tokens))
    going_on = [stream.text(tag)[0] for tag in ("<failure_analysis>", "<step_1>")]
    assert shaped[:, going_on].tolist() == [[0.0, 0.0]] * 2
    assert shaped[:, stream.eos].tolist() == [3.0, 0.0]
    elsewhere = torch.tensor([[stream.bos, *stream.text(" red")]] * 2)
    assert constraint(elsewhere, torch.zeros(2, tokens))[0, stream.eos] == 0


# --- measuring --------------------------------------------------------------------------------


def drawn(things: dict) -> bytes:
    return images.to_png(render(Scene.of(things)))


SUN = Sprite("red", "sun")
RIGHT, WRONG = drawn({4: SUN}), drawn({0: SUN})
SAYS_YES = Evaluation(instruction=5, consistency=5, quality=5, knowledge=5)
SAYS_NO = Evaluation(instruction=1, consistency=5, quality=5, knowledge=1)


def told_as(story: Story, *pairs: tuple[bytes, Evaluation]) -> Told:
    drafts = [
        draft.model_copy(update={"image": image, "evaluation": evaluation})
        for draft, (image, evaluation) in zip(story.drafts, pairs, strict=True)
    ]
    rest = tuple(drafts[1:])
    story = Story(
        prompt=PROMPT, first=drafts[0],
        rounds=rest if story.rounds else (), steps=rest if story.steps else (),
    )  # fmt: skip
    return Told(PROMPT, tuple(story.segments()), story, None, story.mode)


def test_figures_by_hand():
    told = [
        told_as(direct(), (RIGHT, SAYS_YES)),
        told_as(direct(), (WRONG, SAYS_YES)),  # believes in it wrongly
        told_as(reflection(1), (WRONG, SAYS_NO), (RIGHT, SAYS_YES)),
        told_as(multi_step(2), (WRONG, SAYS_NO), (WRONG, SAYS_YES), (RIGHT, SAYS_YES)),
        Told(PROMPT, ("nothing",), None, "no-image", "direct"),
    ]
    found = measure.outcomes(told, PocketAnalyzer(), STRICT)
    assert [one.success for one in found] == [True, False, True, True, False]
    assert [one.first for one in found] == [True, False, False, False, False]
    assert [(one.agreed, one.judged) for one in found] == [(1, 1), (0, 1), (2, 2), (1, 1), (0, 0)]
    assert measure.figures(found) == {
        "success": 0.6, "first_success": 0.2, "valid": 0.8, "images": 7 / 5,
        "self_accuracy": 0.8, "unjudged": 0.0,
        "mode.direct": 0.6, "mode.reflection": 0.2, "mode.multi_step": 0.2,
    }  # fmt: skip


def test_what_nobody_could_judge_is_no_failure():
    class Silent(PocketAnalyzer):
        def evaluate(self, cases):
            return [Failure(role="analyzer", reason="down")] * len(cases)

    told = [told_as(direct(), (RIGHT, SAYS_YES))]
    found = measure.outcomes(told, Silent(), STRICT)
    assert found[0].success is None and found[0].judged == 0
    assert measure.figures(found)["unjudged"] == 1.0
    unknown = Prompt(id="x", instruction="make it nicer")
    lost = [Told(unknown, (RIGHT,), None, "evaluation-missing", "direct")]
    assert measure.outcomes(lost, PocketAnalyzer(), STRICT)[0].success is None
