"""An MLflow model from code: exact and quick parts with the registered pipeline's face."""

from __future__ import annotations

from typing import Any

import pandas as pd
from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel
from pocket_renderer import RenderGenerator

from interloom import loop
from interloom.backends.pocket import PocketTeacher
from interloom.registered.answers import answer_row
from interloom.registered.requests import requests_of


class PocketPipeline(PythonModel):
    def load_context(self, context: Any) -> None:
        self.planner = self.critic = PocketTeacher()
        self.generator = RenderGenerator(name=context.model_config["generator"])

    def predict(
        self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        chosen = params or {}
        made = loop.run(
            requests_of(model_input.to_dict("records")),
            self.planner,
            self.generator,
            self.critic,
            max_attempts=chosen.get("max_attempts", 5),
            seed=chosen.get("seed", 0),
        )
        return pd.DataFrame([answer_row(trajectory) for trajectory in made])


set_model(PocketPipeline())
