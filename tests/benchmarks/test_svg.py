from __future__ import annotations

from xml.etree import ElementTree

import pytest

from interloom.benchmarks import svg


def drawn(figure: str) -> ElementTree.Element:
    """The chart, which must be well-formed XML."""
    return ElementTree.fromstring(figure)


def test_bars_have_lengths_in_proportion():
    values = [svg.Bar("a <b>", 25, 20, 30), svg.Bar("c", 50, 40, 60)]
    chart = drawn(svg.bars(values, title="x & y"))
    lengths = [float(rect.attrib["width"]) for rect in chart.iter("rect")]
    assert lengths[1] == pytest.approx(2 * lengths[0], abs=0.2)
    assert "a <b>" in [text.text for text in chart.iter("text")]


def test_curves_span_the_chart():
    chart = drawn(svg.curves({"loss": [(0, 1.0), (10, 0.5)], "flat": [(0, 0.2)]}, title="t"))
    lines = [line.attrib["points"].split() for line in chart.iter("polyline")]
    assert [len(points) for points in lines] == [2, 1]
    assert float(lines[0][0].split(",")[0]) == svg.LEFT


def test_nothing_to_draw_draws_nothing():
    assert svg.curves({}, title="t") == ""
    assert "<svg" in svg.curves({"zero": [(1, 0.0)]}, title="t")
