"""``interloom show …``: look at the data of both systems."""

from __future__ import annotations

from interloom.adaptive.commands import masks
from interloom.construct.commands import app

app.command()(masks)
