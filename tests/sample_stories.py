"""Stories for tests: hypothesis strategies, and small pictures."""

from __future__ import annotations

import io
import re
import string

from hypothesis import strategies as st
from PIL import Image

from interloom.adaptive.story import (
    MAX_ROUNDS,
    MAX_STEPS,
    MIN_STEPS,
    Draft,
    Prompt,
    Round,
    Story,
    SubStep,
)
from interloom.records import FAILURE_KINDS, Evaluation, Reflection


def picture(shade: int, side: int = 8) -> bytes:
    """A grey PNG; each shade has its own bytes."""
    buffer = io.BytesIO()
    Image.new("RGB", (side, side), (shade, shade, shade)).save(buffer, "PNG")
    return buffer.getvalue()


GOOD = Evaluation(reasoning="red sun seen", instruction=5, consistency=5, quality=5, knowledge=5)
BAD = Evaluation(reasoning="red sun missing", instruction=2, consistency=5, quality=4, knowledge=2)
FIX = Reflection(
    kind="under-editing", failure_analysis="the red sun is missing",
    improvement_plan="add a red sun at the center",
)  # fmt: skip
PROMPT = Prompt(id="p/1", instruction="a red sun at the center", category="object_addition")


def direct() -> Story:
    return Story(prompt=PROMPT, first=Draft(image=picture(1), evaluation=GOOD))


def reflection(rounds: int = 2) -> Story:
    return Story(
        prompt=PROMPT.model_copy(update={"references": (picture(90),)}),
        first=Draft(image=picture(1), evaluation=BAD),
        rounds=tuple(
            Round(
                reflection=FIX,
                image=picture(1 + number),
                evaluation=GOOD if number == rounds else BAD,
            )
            for number in range(1, rounds + 1)
        ),
    )


def multi_step(steps: int = 3) -> Story:
    return Story(
        prompt=PROMPT,
        first=Draft(image=picture(1), evaluation=BAD),
        steps=tuple(
            SubStep(instruction=f"add part {i}", image=picture(1 + i), evaluation=GOOD)
            for i in range(1, steps + 1)
        ),
    )


# Marks cannot stand in a text; hypothesis takes words out of the code and would try them.
texts = (
    st.text(string.ascii_letters + string.digits + " .,;:'\"-<>&äß", max_size=40)
    .map(lambda text: " ".join(text.split()))
    .filter(lambda text: not re.search(r"</?\w", text))
)
some_text = texts.filter(bool)
scores = st.integers(1, 5)
evaluations = st.builds(
    Evaluation, reasoning=texts, instruction=scores, consistency=scores, quality=scores,
    knowledge=scores,
)  # fmt: skip
# A text that begins like a failure's kind would be read as one.
reflections = st.builds(
    Reflection,
    kind=st.sampled_from((None, *FAILURE_KINDS)),
    failure_analysis=some_text.filter(lambda t: not t.startswith(FAILURE_KINDS)),
    improvement_plan=some_text,
)
pictures = st.integers(0, 255).map(picture)
prompts = st.builds(
    Prompt, id=st.just("p"), instruction=some_text,
    references=st.lists(pictures, max_size=2).map(tuple), category=st.sampled_from(("", "a")),
)  # fmt: skip
drafts = st.builds(Draft, image=pictures, evaluation=evaluations)
rounds = st.builds(Round, image=pictures, evaluation=evaluations, reflection=reflections)
sub_steps = st.builds(SubStep, image=pictures, evaluation=evaluations, instruction=some_text)
stories = st.one_of(
    st.builds(Story, prompt=prompts, first=drafts),
    st.builds(
        Story, prompt=prompts, first=drafts,
        rounds=st.lists(rounds, min_size=1, max_size=MAX_ROUNDS).map(tuple),
    ),
    st.builds(
        Story, prompt=prompts, first=drafts,
        steps=st.lists(sub_steps, min_size=MIN_STEPS, max_size=MAX_STEPS).map(tuple),
    ),
)  # fmt: skip
