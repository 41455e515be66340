"""What a terminal shows of a lifecycle."""

from __future__ import annotations

import pytest
from rich.console import Console

from interloom.progress import Report


@pytest.fixture
def lines() -> list[str]:
    """The view of a lifecycle in which everything has happened at least once."""
    from flows.display import Display

    display = Display()
    display.open(["prompts", "trajectories", "critic-data", "validate", "report"])
    display.close()
    display.begin("prompts")
    display.end("prompts", "done")
    display.begin("trajectories")
    display.line("trajectories", "trajectories: loading data/generator")
    display.begin("critic-data")
    display.report(Report("critic-data", "scoring", 30, 120, 10.0))
    display.line("critic-data", "a warning of some library")
    display.begin("validate")
    display.line("validate", "interloom: 2 expectations do not hold")
    display.end("validate", "failed")
    console = Console(width=80, record=True, force_terminal=False)
    console.print(display._render())
    return console.export_text().splitlines()


def test_stage_step_rate_and_what_is_left(lines: list[str]) -> None:
    assert lines[0].split() == ["✓", "prompts", "0:00", "done"]
    assert lines[1].split() == ["▶", "trajectories", "0:00", "loading", "data/generator"]
    assert "█████░░░░░░░░░░░░░░░ scoring 30/120 · 3.0/s · 0:30 to go" in lines[2]
    assert lines[3].startswith("✗") and "2 expectations do not hold" in lines[3]
    assert lines[4].split() == ["·", "report"]
    assert lines[5].strip() == "2 of 5 stages · 0:00"
