"""The trajectories stage with Gemini as teacher and two remote generators, over real HTTP."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from data_project import Project, small_settings
from model_server import (
    MODEL,
    Asked,
    ModelServer,
    Said,
    gemini,
    gemini_error,
    gemini_picture,
    openai_picture,
    picture,
    serving,
)

from interloom.backends.ledger import LEDGER, Ledger
from interloom.construct import store
from interloom.errors import InterloomError
from interloom.records import Request, Trajectory
from interloom.settings import PriceSettings, Settings

PRICES = {MODEL: PriceSettings(input=1.0, output=10.0, image=0.01)}
REQUESTS = [
    *(Request(id=f"r{n}", text=f"a story about the number {n}") for n in range(4)),
    Request(id="go-on", text="go on from here", images=(picture("blue"),), kind="continuation"),
    Request(
        id="describe",
        text="describe them",
        images=(picture("red"), picture("blue")),
        kind="text_response",
    ),
    Request(id="forbidden", text="something forbidden"),
]


def plan_for(text: str, pictures: int) -> dict[str, Any]:
    """Two pictures, or the step after the given ones, or a text for each of them."""
    steps = range(1, 3)
    if "go on" in text:
        steps = range(pictures + 1, pictures + 2)
    elif "describe" in text:
        steps = range(1, pictures + 1)
    drawn = "describe" not in text
    return {
        "reasoning": "as it is asked for",
        "execution_plan": [
            {
                "step_number": number,
                "step_name": f"part {number}",
                "instruction": f"show part {number}" if drawn else None,
                "prompt": f"part {number} of {text.strip()}" if drawn else None,
                "auxiliary_text": "a text",
            }
            for number in steps
        ],
    }


def answer(asked: Asked) -> Said:
    """Plays all parts; a picture passes when its prompt was refined to a better one."""
    if asked.number in (2, 9):
        return gemini_error(500, "INTERNAL") if "models" in asked.path else Said(status=503)
    if "/images/" in asked.path:
        return openai_picture(picture("green"))
    config = asked.json["generationConfig"]
    if config.get("responseModalities") == ["IMAGE"]:
        return gemini_picture(picture("yellow"))
    parts = asked.json["contents"][0]["parts"]
    text = "".join(part.get("text", "") for part in parts)
    if "execution_plan" not in config["responseJsonSchema"]["properties"]:
        good = "better" in text
        refined = "a better one" if not good else "unchanged"
        return gemini({"reasoning": "", "previous_step_success": good, "refine_prompt": refined})
    if "forbidden" in text:
        return Said({"candidates": [{"finishReason": "SAFETY", "index": 0}]})
    asked_for = text.split("Request: ")[1].split("\n")[0]
    return gemini(plan_for(asked_for, sum("inlineData" in part for part in parts)))


def settings_for(server: ModelServer, **gemini_changes: Any) -> Settings:
    settings = small_settings()
    quick = {"max_wait_seconds": 0.2, "requests_per_minute": 0.0, "prices": PRICES}
    remote = settings.remote.model_copy(
        update={
            "gemini": settings.remote.gemini.model_copy(
                update=quick | {"base_urls": (server.url,)} | gemini_changes
            ),
            "http": settings.remote.http.model_copy(
                update=quick | {"base_urls": (server.url,), "budget_usd": 1.0}
            ),
        }
    )
    models = settings.models
    strong = models.generator.model_copy(update={"backend": "http", "model": MODEL, "call": {}})
    weak = models.generator_weak.model_copy(
        update={"backend": "gemini", "model": MODEL, "call": {}}
    )
    return settings.model_copy(
        update={
            "remote": remote,
            "teacher": settings.teacher.model_copy(update={"backend": "gemini", "model": MODEL}),
            "models": models.model_copy(update={"generator": strong, "generator_weak": weak}),
        }
    )


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GEMINI_API_KEY", "k")
    for name in ("data/generator", "data/generator-weak", "outputs"):
        (tmp_path / name).mkdir(parents=True)
    rows = pa.Table.from_pylist([store.request_row(request) for request in REQUESTS])
    pq.write_table(rows, tmp_path / "outputs/prompts.parquet")
    return tmp_path


def made(root: Path) -> dict[str, Trajectory]:
    return {t.request.id: t for t in store.read_trajectories(root / "outputs/trajectories")}


def test_the_loop_over_real_wires(root: Path):
    with serving(answer) as server:
        project = Project(root, settings_for(server))
        project.run("trajectories")
        found = made(root)
        assert set(found) == {request.id for request in REQUESTS}
        refused = found.pop("forbidden").failure
        assert refused is not None and refused.reason == "refused: SAFETY"
        assert all(trajectory.failure is None for trajectory in found.values())
        texts = found.pop("describe")
        assert [step.step.auxiliary_text for step in texts.steps] == ["a text"] * 2
        assert [step.step.step_number for step in found["go-on"].steps] == [2]
        for trajectory in found.values():
            for step in trajectory.steps:
                first, second = step.attempts
                assert first.critique and not first.critique.success
                assert second.prompt == "a better one"
                assert second.critique and second.critique.success
        drawn = {a.image for t in found.values() for s in t.steps for a in s.attempts}
        assert drawn == {picture("green"), picture("yellow")}, "by either generator"

        before, costs = len(server.asked), Ledger(root / LEDGER).costs()
        assert {cost.backend for cost in costs} == {"gemini", "http"}
        assert {cost.purpose for cost in costs} == {"trajectories"}
        assert sum(cost.calls for cost in costs) == before
        assert sum(cost.failures for cost in costs) == 3, "two errors and a refusal"

        first = (root / "outputs/trajectories").rename(root / "first")
        shutil.rmtree(root / ".interloom/work")
        project.run("trajectories")
        assert len(server.asked) == before + 1, "only what was refused is asked again"
        for shard in first.iterdir():
            assert shard.read_bytes() == (root / "outputs/trajectories" / shard.name).read_bytes()


def test_the_budget_ends_the_stage_and_a_larger_one_goes_on(root: Path):
    with serving(answer) as server:
        with pytest.raises(InterloomError, match=r"remote\.gemini\.budget_usd = 0\.004"):
            Project(root, settings_for(server, budget_usd=0.004)).run("trajectories")
        assert not (root / "outputs/trajectories").exists()
        spent, _, _ = Ledger(root / LEDGER).spent("gemini")
        assert 0.001 < spent <= 0.004
        Project(root, settings_for(server)).run("trajectories")
        bodies = [asked.body for asked in server.asked if "models" in asked.path]
    assert len(made(root)) == len(REQUESTS)
    repeated = len(bodies) - len(set(bodies))
    assert repeated <= 3, "only errors and the refusal were asked again"
