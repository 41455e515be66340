"""The texts of rules and procedures: slots filled, and canonical sentences carried out."""

from __future__ import annotations

import re
from collections.abc import Mapping

from interloom.pocket.language import parse_canonical_edit
from interloom.pocket.scene import Edit, Scene, apply


def fill(template: str, slots: Mapping[str, str]) -> str:
    """Fill a template; "orange" is the only slot value that wants "an"."""
    return re.sub(r"\ba (?=orange\b)", "an ", template.format_map(slots))


def carry_out(text: str, scene: Scene) -> tuple[Scene, list[Edit]]:
    """Carry out canonical sentences joined by ``"; "``; the scene after them, and the edits.

    Raises:
        ValueError: a sentence is not canonical, or does not fit the scene before it.
    """
    edits = []
    for sentence in text.split("; "):
        edit = parse_canonical_edit(sentence, scene)
        scene = apply(scene, edit)
        edits.append(edit)
    return scene, edits
