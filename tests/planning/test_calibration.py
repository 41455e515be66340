from __future__ import annotations

from pathlib import Path

import pytest

from interloom.errors import InterloomError
from interloom.planning.calibration import FILE, figures, load


def test_every_figure_says_where_it_is_from() -> None:
    known = load()
    found = dict(figures(known))
    assert len(found) >= 50
    for name, figure in found.items():
        assert figure.value > 0 and figure.unit, name
        # What code or a formula says stands for itself; everything else is one of three.
        words = ("published", "measured", "assumed", "accelerate", "TRL", "weights", "bfloat16")
        assert figure.source.startswith(words), f"{name}: {figure.source}"


def test_a_wrong_figure_is_named(tmp_path: Path) -> None:
    text = FILE.read_text(encoding="utf-8")
    file = tmp_path / "mine.yaml"
    file.write_text(text.replace("{value: 989,", "{value: -1,"), encoding="utf-8")
    with pytest.raises(InterloomError, match=r"mine.yaml: gpu.peak.value = -1"):
        load(file)
    file.write_text(text.replace("bandwidth:", "bandwith:"), encoding="utf-8")
    with pytest.raises(InterloomError, match=r"gpu\.bandwith: unknown key"):
        load(file)
    with pytest.raises(InterloomError, match="no such file"):
        load(tmp_path / "none.yaml")


def test_an_unknown_model_is_named_with_what_to_do() -> None:
    with pytest.raises(InterloomError, match=r"models.vlm: .*'x/y'.*--calibration"):
        load().vlm("x/y")
    with pytest.raises(InterloomError, match=r"generator 'x/y'.*--calibration"):
        load().generator("x/y")
