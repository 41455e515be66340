"""The registered critic: before, after and prompts in, a critique out. Loaded from this code."""

from __future__ import annotations

from typing import Any

import pandas as pd
from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel

from interloom.agents import ModelCritic
from interloom.records import Failure
from interloom.registered.chat import load_chat, optional_image, read_image
from interloom.roles import CritiqueCase


class CriticModel(PythonModel):
    """Columns in: ``after``, ``prompt``, optionally ``before``, ``used_prompt``.

    Columns out: ``success``, ``refine_prompt``, ``reasoning``, ``failure``.
    """

    def load_context(self, context: Any) -> None:
        chat = load_chat(context.artifacts["critic"], context.model_config, "critic")
        self.critic = ModelCritic(chat, context.model_config["dialogue"])

    def predict(
        self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        rows = model_input.to_dict("records")
        cases = [
            CritiqueCase(
                before=optional_image(row.get("before"), f"row {number}, before"),
                after=read_image(row["after"], f"row {number}, after"),
                prompt=row["prompt"],
                used_prompt=row.get("used_prompt") or row["prompt"],
            )
            for number, row in enumerate(rows)
        ]
        answers = self.critic.critique(cases)
        return pd.DataFrame(
            [
                {"success": False, "refine_prompt": "", "reasoning": "", "failure": answer.reason}
                if isinstance(answer, Failure)
                else {**answer.model_dump(), "failure": ""}
                for answer in answers
            ]
        )


set_model(CriticModel())
