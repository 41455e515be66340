"""A chat model and a dialogue format make a Planner or a Critic."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

from interloom import dialogue
from interloom.backends.ledger import NOTHING, Usage
from interloom.dialogue import AnswerError, Conversation, Style
from interloom.records import Critique, Failure, Plan, Request
from interloom.roles import CritiqueCase

Answer = TypeVar("Answer", Plan, Critique)


class Chat(Protocol):
    """What an agent needs of a chat model; ``backends.transformers.ChatModel`` is one."""

    name: str
    usage: list[Usage]
    """Tokens of each answer of the last ``generate``."""

    def generate(
        self, conversations: Sequence[Conversation], *, temperature: float = 0.0, seed: int = 0
    ) -> list[str]: ...


class ModelPlanner:
    """Plans by asking a chat model.

    Args:
        retries: how often an answer that cannot be read is sampled again.
        temperature: of those further tries; the first one is greedy.
    """

    def __init__(
        self, chat: Chat, style: Style, *, retries: int = 1, temperature: float = 0.7, seed: int = 0
    ) -> None:
        self.chat = chat
        self.name = chat.name
        self.style: Style = style
        self.retries = retries
        self.temperature = temperature
        self.seed = seed
        self.usage: list[Usage] = []
        """Tokens that each item of the last call took, all its tries together."""

    def plan(self, requests: Sequence[Request]) -> list[Plan | Failure]:
        """One plan per request; a ``Failure`` names the rule that the last answer broke."""
        conversations = [dialogue.planner_messages(request, self.style) for request in requests]
        answers = _ask(self, conversations, dialogue.parse_plan)
        return [_failed("planner", a) if isinstance(a, AnswerError) else a for a in answers]


class ModelCritic:
    """Judges and refines by asking a chat model; arguments as for ``ModelPlanner``."""

    def __init__(
        self, chat: Chat, style: Style, *, retries: int = 1, temperature: float = 0.7, seed: int = 0
    ) -> None:
        self.chat = chat
        self.name = chat.name
        self.style: Style = style
        self.retries = retries
        self.temperature = temperature
        self.seed = seed
        self.usage: list[Usage] = []
        """Tokens that each item of the last call took, all its tries together."""

    def critique(self, cases: Sequence[CritiqueCase]) -> list[Critique | Failure]:
        """One critique per case; a ``Failure`` names the rule that the last answer broke."""
        conversations = [dialogue.critic_messages(case, self.style) for case in cases]
        answers = _ask(self, conversations, dialogue.parse_critique)
        return [_failed("critic", a) if isinstance(a, AnswerError) else a for a in answers]


def _failed(role: str, error: AnswerError) -> Failure:
    return Failure(role="planner" if role == "planner" else "critic", reason=str(error))


def _ask(
    agent: ModelPlanner | ModelCritic,
    conversations: Sequence[Conversation],
    parse: Callable[[str], Answer],
) -> list[Answer | AnswerError]:
    """Greedy answers first; those that cannot be read are sampled again, each try with its own
    seed."""
    answers: list[Answer | AnswerError] = []
    agent.usage = [NOTHING] * len(conversations)
    texts = agent.chat.generate(conversations, temperature=0.0, seed=agent.seed)
    _count(agent, range(len(conversations)))
    answers += (_parsed(parse, text) for text in texts)
    for attempt in range(1, agent.retries + 1):
        unread = [i for i, answer in enumerate(answers) if isinstance(answer, AnswerError)]
        if not unread:
            break
        texts = agent.chat.generate(
            [conversations[i] for i in unread],
            temperature=agent.temperature,
            seed=agent.seed + attempt,
        )
        _count(agent, unread)
        for i, text in zip(unread, texts, strict=True):
            answers[i] = _parsed(parse, text)
    return answers


def _count(agent: ModelPlanner | ModelCritic, places: Sequence[int]) -> None:
    """Add what the chat model's last call took to the items that it was about."""
    for place, more in zip(places, agent.chat.usage, strict=True):
        so_far = agent.usage[place]
        agent.usage[place] = Usage(
            so_far.input_tokens + more.input_tokens, so_far.output_tokens + more.output_tokens
        )


def _parsed(parse: Callable[[str], Answer], text: str) -> Answer | AnswerError:
    try:
        return parse(text)
    except AnswerError as error:
        return error
