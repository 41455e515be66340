from __future__ import annotations

from collections import Counter

from sample_trajectories import odd_ones, trajectory

from interloom.construct.parts import count, in_order
from interloom.construct.trajectories import account


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
