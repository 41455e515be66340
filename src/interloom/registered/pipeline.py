"""The registered pipeline: planner, generator and critic in the closed loop. Loaded from this
code."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel

from interloom import cast, loop
from interloom.agents import ModelCritic, ModelPlanner
from interloom.backends.ledger import LEDGER
from interloom.backends.remote import Remotes
from interloom.registered.answers import answer_row
from interloom.registered.chat import load_chat
from interloom.registered.requests import requests_of
from interloom.settings.models import GeneratorSettings, RemotesSettings


class PipelineModel(PythonModel):
    """Columns in: ``text``, optionally ``images``, ``kind``; params ``max_attempts``, ``seed``.

    Columns out: ``texts`` and ``images`` (lists, one entry per step; base64 PNG, empty without a
    picture), ``trajectory`` (JSON: plan and every attempt with its critique) and ``failure``.
    """

    def load_context(self, context: Any) -> None:
        config = context.model_config
        style = config["dialogue"]
        folders = context.artifacts
        self.planner = ModelPlanner(load_chat(folders["planner"], config, "planner"), style)
        self.critic = ModelCritic(load_chat(folders["critic"], config, "critic"), style)
        generator = dict(config["generator"])
        # A folder travels with the model; a hub name is resolved where the model is loaded.
        generator["model"] = context.artifacts.get("generator", generator["model"])
        # Reached as in the project that made the model; API keys come from the environment here.
        remote = RemotesSettings.model_validate_json(json.dumps(config["remote"]))
        self.generator = cast.generator(
            GeneratorSettings.model_validate_json(json.dumps(generator)),
            Remotes(remote, Path(LEDGER), purpose="serving"),
        )

    def predict(
        self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        chosen = params or {}
        trajectories = loop.run(
            requests_of(model_input.to_dict("records")),
            self.planner,
            self.generator,
            self.critic,
            max_attempts=chosen.get("max_attempts", context.model_config["max_attempts"]),
            seed=chosen.get("seed", 0),
        )
        return pd.DataFrame([answer_row(trajectory) for trajectory in trajectories])


set_model(PipelineModel())
