from __future__ import annotations

import numpy as np
import pytest

from interloom.benchmarks.statistics import mean, paired_difference, stratified_mean


def test_interval_covers_the_true_mean_about_as_often_as_it_says():
    rng = np.random.default_rng(1)
    samples = [mean(rng.normal(3.0, 1.0, 40).tolist()) for _ in range(150)]
    covered = sum(estimate.low <= 3.0 <= estimate.high for estimate in samples)
    assert 0.88 <= covered / 150 <= 0.99


def test_strata_count_equally_whatever_their_size():
    estimate = stratified_mean({"a": [1.0] * 99, "b": [0.0]})
    assert (estimate.value, estimate.low, estimate.high, estimate.n) == (0.5, 0.5, 0.5, 100)
    assert stratified_mean({"a": [1.0], "b": [0.0]}, {"a": 3.0, "b": 1.0}).value == 0.75


def test_pairing_narrows_the_interval():
    rng = np.random.default_rng(2)
    base = {str(i): float(v) for i, v in enumerate(rng.normal(50, 20, 60))}
    better = {item: value + 2 + float(rng.normal(0, 1)) for item, value in base.items()}
    paired = paired_difference(better, base)
    assert paired.excludes_zero and paired.value == pytest.approx(2, abs=0.5)
    assert mean(list(better.values())).low < mean(list(base.values())).high


def test_only_shared_items_are_compared():
    assert paired_difference({"a": 3.0, "b": 9.0}, {"a": 1.0, "c": 0.0}).n == 1
    with pytest.raises(ValueError, match="no item in common"):
        paired_difference({"a": 1.0}, {"b": 1.0})
    with pytest.raises(ValueError, match="no values"):
        stratified_mean({"a": []})


def test_the_same_data_gives_the_same_interval():
    values = [0.0, 1.0, 4.0, 2.0]
    assert mean(values) == mean(values)
    assert paired_difference({"b": 1.0, "a": 3.0}, {"a": 0.0, "b": 0.5}) == paired_difference(
        {"a": 3.0, "b": 1.0}, {"b": 0.5, "a": 0.0}
    )
