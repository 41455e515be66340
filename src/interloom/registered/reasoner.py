"""The registered unified model: it draws, judges itself and goes on by itself. Loaded from this
code."""

from __future__ import annotations

from typing import Any

import pandas as pd
import torch
from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel

from interloom.adaptive.reasoner import AdaptiveReasoner, Budget
from interloom.adaptive.trajectories import answer
from interloom.backends.unified import UnifiedModel
from interloom.errors import InterloomError
from interloom.registered.answers import story_row
from interloom.registered.requests import requests_of


class ReasonerModel(PythonModel):
    """Columns in: ``text``, optionally ``images``; params ``image_budget`` (0: as many pictures as
    the model wants), ``reluctance`` (nats off each further picture) and ``seed``.

    Columns out: those of the pipeline, ``mode`` (direct, reflection, multi_step) and
    ``images_used``.
    """

    def load_context(self, context: Any) -> None:
        config = context.model_config
        unified = UnifiedModel.from_pretrained(
            context.artifacts["unified"],
            device="cuda" if torch.cuda.is_available() else "cpu",
            dtype=getattr(torch, config["dtype"]),
            image_pixels=config["image_pixels"],
            grid_side=config["grid_side"],
            batch_size=config["batch_size"],
        )
        self.reasoner = AdaptiveReasoner(unified, max_tokens=config["max_new_tokens"])

    def predict(
        self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        chosen = params or {}
        most, price = chosen.get("image_budget", 0), chosen.get("reluctance", 0.0)
        if most < 0 or price < 0:
            raise InterloomError("image_budget and reluctance are 0 or more")
        requests = requests_of(model_input.to_dict("records"))
        if any(request.kind == "text_response" for request in requests):
            raise InterloomError("a unified model makes pictures: kind text_response is not its")
        budgets = [Budget(images=most or None, reluctance=price)] * len(requests)
        found = answer(self.reasoner, requests, budgets, chosen.get("seed", 0))
        return pd.DataFrame([story_row(one) for one in found])


set_model(ReasonerModel())
