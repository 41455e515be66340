from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from interloom import images
from interloom.agents import ModelCritic, ModelPlanner
from interloom.backends.ledger import Usage
from interloom.backends.transformers import ChatModel
from interloom.dialogue import Conversation, format_critique, format_plan
from interloom.records import Critique, Failure, Plan, Request, Step
from interloom.roles import CritiqueCase

WHITE = images.to_png(Image.new("RGB", (96, 96), "white"))
PLAN = Plan(reasoning="one", steps=(Step(step_number=1, instruction="draw", prompt="a red sun"),))
CRITIQUE = Critique(success=False, refine_prompt="a red sun at the top left", reasoning="no sun")
CASE = CritiqueCase(before=None, after=WHITE, prompt="a red sun", used_prompt="a red sun")


class Script:
    """A chat model that answers from a list of rounds and notes how it was asked."""

    name = "script"

    def __init__(self, *rounds: list[str]) -> None:
        self.rounds = list(rounds)
        self.asked: list[tuple[int, float, int]] = []
        self.usage: list[Usage] = []

    def generate(
        self, conversations: Sequence[Conversation], *, temperature: float = 0.0, seed: int = 0
    ) -> list[str]:
        self.asked.append((len(conversations), temperature, seed))
        self.usage = [Usage(10, 5)] * len(conversations)
        return self.rounds.pop(0)


def test_plans_are_read_and_only_unreadable_ones_are_asked_again():
    chat = Script([format_plan(PLAN), "no idea"], [format_plan(PLAN)])
    planner = ModelPlanner(chat, "short", temperature=0.5, seed=3)
    assert planner.plan([Request(id="a", text="sun"), Request(id="b", text="sun")]) == [PLAN, PLAN]
    assert planner.usage == [Usage(10, 5), Usage(20, 10)]
    assert chat.asked == [(2, 0.0, 3), (1, 0.5, 4)]


def test_an_unreadable_answer_ends_as_a_failure_that_names_the_rule():
    chat = Script(["hm"], ["hm"], ["<think></think><answer>{}</answer>"])
    result = ModelCritic(chat, "short", retries=2).critique([CASE])
    assert isinstance(result[0], Failure)
    assert (result[0].role, result[0].reason) == ("critic", "missing-field: previous_step_success")


def test_critiques_are_read():
    critic = ModelCritic(Script([format_critique(CRITIQUE)]), "full")
    assert critic.critique([CASE]) == [CRITIQUE]


def test_a_real_model_with_random_weights_gives_one_failure_per_item(tiny_vlm: Path):
    chat = ChatModel.from_pretrained(tiny_vlm, max_new_tokens=8)
    critiques = ModelCritic(chat, "short").critique([CASE, CASE])
    plans = ModelPlanner(chat, "short").plan([Request(id="a", text="sun", images=(WHITE,))])
    assert [type(answer) for answer in critiques + plans] == [Failure] * 3
