from __future__ import annotations

from collections.abc import Sequence

import pytest
from pocket_draftsman import Draftsman

from interloom import images
from interloom.adaptive.escalation import Escalation, Rules
from interloom.adaptive.released import Discarded
from interloom.adaptive.story import Prompt, Story
from interloom.backends.pocket_analyzer import PocketAnalyzer
from interloom.pocket.render import render
from interloom.pocket.scene import Scene, Sprite
from interloom.records import Evaluation, Failure, Thresholds
from interloom.roles import DraftCase

STRICT = Thresholds(instruction=5, consistency=5, quality=3, knowledge=3)
RULES = Rules(accepted=STRICT, step_accepted=STRICT, retries=1)
SUN, CUP, FISH = Sprite("red", "sun"), Sprite("blue", "cup"), Sprite("green", "fish")
PLACES = ("top left", "top center", "top right", "middle left", "center", "middle right")


def caption(things: int, sky: str = "") -> str:
    return ", ".join(f"a red sun at the {place}" for place in PLACES[:things]) + sky


def prompt(text: str, *pictures: bytes) -> Prompt:
    return Prompt(id=f"p/{abs(hash(text)) % 10**8}", instruction=text, references=pictures)


def escalate(
    *prompts: Prompt,
    baseline: Draftsman | None = None,
    generator: Draftsman | None = None,
    analyzer: PocketAnalyzer | None = None,
    rules: Rules = RULES,
):
    escalation = Escalation(
        baseline or Draftsman(), analyzer or PocketAnalyzer(), generator or Draftsman(1), rules, 7
    )
    return escalation.run(prompts), escalation


def test_what_the_baseline_can_do_is_direct():
    (story,), escalation = escalate(prompt(caption(2)))
    assert isinstance(story, Story) and story.mode == "direct"
    assert story.first.evaluation.passes(STRICT)
    assert not escalation.generator.jobs


@pytest.mark.parametrize("missing", [1, 2, 3])
def test_so_many_rounds_as_are_needed(missing):
    """The generator mends one cell a round."""
    (story,), _ = escalate(prompt(caption(2 + missing)))
    assert isinstance(story, Story) and story.mode == "reflection"
    assert len(story.rounds) == missing
    passed = [draft.evaluation.passes(STRICT) for draft in story.drafts]
    assert passed == [False] * missing + [True]
    assert story.rounds[0].reflection.kind == "under-editing"


def test_after_three_rounds_comes_a_plan_and_failed_reflections_are_pruned():
    (story,), escalation = escalate(prompt(caption(6)), generator=Draftsman(2), rules=Rules(
        accepted=STRICT, step_accepted=STRICT, rounds=1))  # fmt: skip
    assert isinstance(story, Story) and story.mode == "multi_step" and not story.rounds
    assert len(story.steps) == 5 and story.steps[0].instruction == caption(2)
    assert not story.first.evaluation.passes(STRICT)
    assert all(step.evaluation.passes(STRICT) for step in story.steps)
    assert escalation.counts["cause.instruction_too_complex"] == 1
    begun = [job for job in escalation.generator.jobs if job.prompt == caption(2)]
    assert begun[0].source is None, "a plan begins from the references, not from the failed picture"


def test_a_plan_for_an_edit_begins_with_the_reference():
    given = images.to_png(render(Scene.of({8: FISH})))
    text = "; ".join(f"add a red sun at the {place}" for place in PLACES[:5])
    (story,), escalation = escalate(
        prompt(text, given), generator=Draftsman(1),
        rules=Rules(accepted=STRICT, step_accepted=STRICT, rounds=0),
    )  # fmt: skip
    assert isinstance(story, Story) and story.mode == "multi_step" and len(story.steps) == 5
    assert escalation.generator.jobs[0].source == given
    assert escalation.generator.jobs[1].source == story.steps[0].image


@pytest.mark.parametrize(
    ("text", "most", "generator", "reason"),
    [
        (caption(1), 0, 0, "diagnosis: generator_limit"),
        (caption(6, ", at night"), 1, 0, "plan: too many sub-steps"),
        (caption(4), 1, 0, "multi_step: a sub-step never passed"),
        ("make it nicer", 1, 1, "direct: analyzer failed"),
    ],
)
def test_reasons_for_having_no_story(text, most, generator, reason):
    (gone,), _ = escalate(prompt(text), baseline=Draftsman(most), generator=Draftsman(generator))
    assert isinstance(gone, Discarded) and gone.reason == reason


def test_what_one_would_have_to_know_is_discarded():
    from interloom.pocket import knowledge

    riddle = knowledge.riddles("train")[0]
    text = f"{riddle.riddle} at the center"
    (gone,), escalation = escalate(prompt(text), baseline=Draftsman(0), generator=Draftsman(0))
    assert isinstance(gone, Discarded) and gone.reason == "diagnosis: missing_knowledge"
    assert escalation.counts["cause.missing_knowledge"] == 1


class Flaky(PocketAnalyzer):
    """Every call about a request fails once; ``always`` never answers."""

    def __init__(self, *, always: bool = False) -> None:
        self.seen: set[bytes] = set()
        self.always = always

    def evaluate(self, cases: Sequence[DraftCase]) -> list[Evaluation | Failure]:
        answers = super().evaluate(cases)
        lost = Failure(role="analyzer", reason="overloaded")
        found = [
            lost if self.always or case.image not in self.seen else answer
            for case, answer in zip(cases, answers, strict=True)
        ]
        self.seen |= {case.image for case in cases}
        return found


def test_failed_calls_are_repeated_and_never_scored():
    (story,), escalation = escalate(prompt(caption(3)), analyzer=Flaky())
    assert isinstance(story, Story) and story.mode == "reflection"
    assert escalation.counts["failed_calls"] == 0
    (gone,), escalation = escalate(prompt(caption(1)), analyzer=Flaky(always=True))
    assert isinstance(gone, Discarded) and gone.reason == "direct: analyzer failed"
    assert escalation.counts["failed_calls"] == 1
    (gone,), _ = escalate(prompt(caption(1)), baseline=Draftsman(broken="sun"))
    assert isinstance(gone, Discarded) and gone.reason == "direct: generator failed"


def test_requests_do_not_disturb_each_other_and_the_accounts_add_up():
    given = images.to_png(render(Scene.of({4: CUP})))
    prompts = [prompt(caption(n)) for n in range(1, 7)] + [
        prompt("remove the blue cup at the center", given), prompt("make it nicer", given),
    ]  # fmt: skip
    together, escalation = escalate(*prompts)
    apart = [escalate(one)[0][0] for one in prompts]
    assert together == apart
    counts, stories = escalation.counts, [o for o in together if isinstance(o, Story)]
    kept = sum(n for name, n in counts.items() if name.endswith(".kept") and "diag" not in name)
    assert kept == len(stories) and counts["direct.came"] == len(prompts)
    assert [o.prompt for o in together] == prompts


def test_references_go_along_where_they_are_wanted():
    first, second = (images.to_png(render(Scene.of({0: s}))) for s in (SUN, CUP))
    text = "put the things of picture 1 into the empty places of picture 2"
    asked = prompt(text, first, images.to_png(render(Scene.of({4: CUP}))))
    for shown in (True, False):
        rules = Rules(accepted=STRICT, step_accepted=STRICT, show_references=shown)
        _, escalation = escalate(asked, baseline=Draftsman(0), rules=rules)
        assert escalation.baseline.jobs[0].references == (first,)
        assert escalation.generator.jobs[0].references == ((first,) if shown else ())
    assert second != first
