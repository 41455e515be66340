from __future__ import annotations

from interloom.construct.division import assign
from interloom.records import Request


def test_weak_share_is_met_and_hangs_on_the_ids():
    requests = [Request(id=f"p{i}", text="x") for i in range(40)]
    weak = assign(requests, 0.3, seed=1)
    assert sum(weak) == 12
    by_id = dict(zip((r.id for r in requests), weak, strict=True))
    again = assign(requests[::-1], 0.3, seed=1)
    assert by_id == dict(zip((r.id for r in requests[::-1]), again, strict=True))
    assert assign(requests, 0.3, seed=2) != weak
    assert sum(assign(requests, 0.0, 1)) == 0 and sum(assign(requests, 1.0, 1)) == 40
