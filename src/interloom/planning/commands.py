"""Body of the command ``interloom plan``."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from interloom.backends.ledger import LEDGER, Ledger
from interloom.errors import InterloomError
from interloom.planning import show
from interloom.planning.calibration import FILE, Calibration, load
from interloom.planning.estimate import make_plan
from interloom.planning.remote import NOTHING_MEASURED, measured
from interloom.planning.volumes import Rows
from interloom.settings.file import load_profile


def tell(
    root: Path,
    profile: str | None,
    rows: str | None,
    calibration: Path | None,
    *,
    figures: bool,
    as_json: bool,
) -> str:
    """The plan of a profile, as text or JSON; with ``figures`` the calibration alone."""
    known = load(calibration or FILE)
    if figures:
        return show.figures_text(known)
    settings = load_profile(root, profile)
    seen = NOTHING_MEASURED
    if (root / LEDGER).is_file():
        seen = measured(Ledger(root / LEDGER).costs())
    plan = make_plan(settings, known, rows=_rows(rows, known), seen=seen)
    if as_json:
        return json.dumps(show.as_json(plan, known), indent=1)
    return show.as_text(plan, known, width=max(100, shutil.get_terminal_size().columns))


def _rows(text: str | None, known: Calibration) -> Rows | None:
    if text is None:
        return None
    if text == "published":
        return Rows.published(known)
    try:
        planner, critic, rl = (float(part) for part in text.split(","))
    except ValueError:
        raise InterloomError(
            f"--rows {text}: expected three numbers, as in 80000,112000,13000, or `published`"
        ) from None
    if min(planner, critic, rl) < 0:
        raise InterloomError(f"--rows {text}: rows cannot be fewer than none")
    return Rows(planner, critic, rl)
