"""The shipped params with an evaluation that takes seconds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from interloom.settings.file import Settings, load_settings, settings_from

PARAMS = Path(__file__).parents[1] / "params.yaml"


def small_params(**evaluate: Any) -> dict[str, Any]:
    """The shipped params with an evaluation that takes seconds."""
    raw = load_settings(PARAMS).model_dump(mode="json")
    raw["evaluate"] |= {
        "items": 8,
        "max_attempts": 2,
        "answer_retries": 0,
        "planner_max_new_tokens": 8,
        "critic_max_new_tokens": 8,
        "threads": 1,
    }
    raw["evaluate"] |= evaluate
    raw["report"]["gallery_items"] = 6
    return raw


def small_settings(**evaluate: Any) -> Settings:
    return settings_from(small_params(**evaluate), "test")
