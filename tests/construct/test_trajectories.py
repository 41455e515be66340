from __future__ import annotations

from collections import Counter

from sample_trajectories import odd_ones, trajectory

from interloom.construct.parts import count, in_order
from interloom.construct.trajectories import account, assign
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


def test_trajectories_come_out_in_the_order_of_requests():
    made = [trajectory(str(i)) for i in range(5)]
    finished = [(place, made[place]) for place in (2, 0, 4, 1, 3)]
    assert list(in_order(finished)) == made


def test_account_of_every_outcome():
    counts: Counter[str] = Counter()
    for one in [trajectory("a", ((False, True), (True,), (False, False))), *odd_ones()]:
        count(one, counts)
    requests, steps = account(counts)
    assert (requests.came, requests.kept) == (6, 4)
    assert requests.lost == {"planner": 1, "generator": 1}
    assert (steps.came, steps.kept) == (8, 3)
    assert steps.lost == {"text-only": 2, "unjudged": 2, "never-passed": 1}
    assert counts["attempts"] == 8 and counts["images"] == 7 and counts["failed_calls"] == 2
