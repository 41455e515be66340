"""The registered planner: a request in, a plan out. Loaded by MLflow from this code."""

from __future__ import annotations

from typing import Any

import pandas as pd
from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel

from interloom.agents import ModelPlanner
from interloom.dialogue import format_plan
from interloom.records import Failure
from interloom.registered.chat import load_chat
from interloom.registered.requests import requests_of


class PlannerModel(PythonModel):
    """Columns in: ``text``, optionally ``images``, ``kind``. Columns out: ``answer``,
    ``failure``."""

    def load_context(self, context: Any) -> None:
        chat = load_chat(context.artifacts["planner"], context.model_config, "planner")
        self.planner = ModelPlanner(chat, context.model_config["dialogue"])

    def predict(
        self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        requests = requests_of(model_input.to_dict("records"))
        plans = self.planner.plan(requests)
        return pd.DataFrame(
            {
                "answer": ["" if isinstance(p, Failure) else format_plan(p) for p in plans],
                "failure": [p.reason if isinstance(p, Failure) else "" for p in plans],
            }
        )


set_model(PlannerModel())
