"""Seven requests for a stage ``trajectories`` whose models are all behind a local server."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from data_project import small_settings
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
)

from interloom.construct import store
from interloom.records import Request
from interloom.settings.file import Settings
from interloom.settings.models import PriceSettings

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


def fill(root: Path) -> Path:
    """Put into a folder what the stage reads."""
    for name in ("data/generator", "data/generator-weak", "outputs"):
        (root / name).mkdir(parents=True)
    rows = pa.Table.from_pylist([store.request_row(request) for request in REQUESTS])
    pq.write_table(rows, root / "outputs/prompts.parquet")
    return root
