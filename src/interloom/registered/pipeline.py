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
from interloom.dialogue import plan_fields
from interloom.records import StepTrace, Trajectory
from interloom.registered.chat import load_chat, to_text
from interloom.registered.requests import requests_of
from interloom.settings import GeneratorSettings, RemotesSettings


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
        return pd.DataFrame([_answer(trajectory) for trajectory in trajectories])


def _answer(trajectory: Trajectory) -> dict[str, Any]:
    steps = trajectory.steps
    told = {
        "plan": [plan_fields(s) for s in trajectory.plan.steps] if trajectory.plan else None,
        "steps": [[_attempt(trace, i) for i in range(len(trace.attempts))] for trace in steps],
    }
    return {
        "texts": [t.step.auxiliary_text or t.step.instruction or "" for t in steps],
        "images": [to_text(t.accepted.image if t.accepted else None) for t in steps],
        "trajectory": json.dumps(told),
        "failure": str(trajectory.failure.reason) if trajectory.failure else "",
    }


def _attempt(trace: StepTrace, number: int) -> dict[str, Any]:
    attempt = trace.attempts[number]
    critique = attempt.critique
    return {
        "prompt": attempt.prompt,
        "seed": attempt.seed,
        "image": to_text(attempt.image),
        "success": None if critique is None else critique.success,
        "reasoning": None if critique is None else critique.reasoning,
        "failure": attempt.failure.reason if attempt.failure else None,
    }


set_model(PipelineModel())
