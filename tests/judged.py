"""A judge for tests that answers in the form it is held to, one answer after the other."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from pydantic import BaseModel

from interloom.dialogue import Conversation
from interloom.records import Failure


class PlayedJudge:
    """Answers in the order of the questions, the last one for ever; ``None`` is a failed call.

    What ``RemoteChat`` does with an answer that cannot be read (ask again, then give up) is done
    here at once.
    """

    name = "played"

    def __init__(self, *answers: dict[str, Any] | None) -> None:
        self.answers = answers
        self.asked: list[Conversation] = []

    @staticmethod
    def text(conversation: Conversation) -> str:
        """All that was said, system and user."""
        parts = [part for message in conversation.messages for part in message["content"]]
        return "".join(part.get("text", "<image>") for part in parts)

    def ask(
        self,
        role: str,
        conversations: Sequence[Conversation],
        form: type[BaseModel],
        readers: Sequence[Callable[[bytes], Any]],
    ) -> list[Any]:
        assert role == "judge"
        said = []
        for conversation, read in zip(conversations, readers, strict=True):
            parts = [part for turn in conversation.messages for part in turn["content"]]
            shown = sum(part["type"] == "image" for part in parts)
            assert shown == len(conversation.images), "as many pictures as places for them"
            assert "{" not in self.text(conversation).replace("[{", ""), "a value was not filled in"
            answer = self.answers[min(len(self.asked), len(self.answers) - 1)]
            self.asked.append(conversation)
            if answer is None:
                said.append(Failure(role="judge", reason="no answer", final=True))
                continue
            try:
                said.append(read(json.dumps(answer).encode()))
            except ValueError as error:
                said.append(Failure(role="judge", reason=str(error), final=True))
        return said
