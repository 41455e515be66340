from __future__ import annotations

import re
from itertools import pairwise
from xml.etree import ElementTree

import pytest

from interloom.construct.sankey import BAND, BAR, drawing
from interloom.construct.yields import Yield

YIELDS = [
    Yield("exclude", 1200, 1100, {"held-out": 60, "duplicate": 40}),
    Yield("filter <steps>", 1100, 825, {"low": 275}),
    Yield("balance", 2000, 900, {"surplus": 1100}),
    Yield("nothing", 0, 0),
]


def test_everything_is_named_and_to_scale():
    root = ElementTree.fromstring(drawing("critic-data", YIELDS))
    words = " ".join(root.itertext())
    for text in ("critic-data", "exclude: 1200", "held-out 60 (5%)", "filter <steps>: 1100"):
        assert text in words
    for text in ("kept 825 (75%)", "low 275 (25%)", "surplus 1100 (55%)", "nothing: 0"):
        assert text in words
    bars = [
        float(rect.attrib["height"])
        for rect in root.iter("{http://www.w3.org/2000/svg}rect")
        if rect.attrib["width"] == str(BAR)
    ]
    share = BAND / 1200
    assert bars[:4] == pytest.approx([BAND, 1100 * share, 1100 * share, 825 * share], abs=0.1)
    assert bars[4:6] == pytest.approx([BAND, BAND * 0.45], abs=0.1), "another row, another scale"


def test_words_do_not_lie_on_each_other():
    found = re.findall(r'<text x="([\d.]+)" y="([\d.]+)"', drawing("x", YIELDS))
    places = sorted((float(x), float(y)) for x, y in found)
    for (x, y), (other_x, other_y) in pairwise(places):
        assert x != other_x or other_y - y > 10
