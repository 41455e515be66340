from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from interloom.cache import (
    CACHE,
    CachedCritic,
    CachedGenerator,
    CallCache,
    call_key,
    kept_answers,
)
from interloom.records import Critique, Failure, Request
from interloom.roles import CritiqueCase, GenerationJob


class Counting:
    """A generator and critic that counts what it is asked."""

    name = "counting"

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.down = False

    def generate(self, jobs: Sequence[GenerationJob]) -> list[bytes | Failure]:
        self.batches.append(len(jobs))
        if self.down:
            return [Failure(role="generator", reason="down") for _ in jobs]
        return [f"{job.prompt} {job.seed}".encode() for job in jobs]

    def critique(self, cases: Sequence[CritiqueCase]) -> list[Critique | Failure]:
        self.batches.append(len(cases))
        return [Critique(success=True, refine_prompt=case.prompt, reasoning="r") for case in cases]


def jobs(*prompts: str) -> list[GenerationJob]:
    return [GenerationJob(prompt=prompt, seed=1) for prompt in prompts]


def test_second_run_asks_nothing(tmp_path: Path):
    inner = Counting()
    first = CachedGenerator(inner, CallCache(tmp_path / "c.sqlite")).generate(jobs("a", "b"))
    cache = CallCache(tmp_path / "c.sqlite")
    again = CachedGenerator(inner, cache).generate(jobs("a", "b", "c"))
    assert again[:2] == first == [b"a 1", b"b 1"]
    assert inner.batches == [2, 1]
    assert (cache.calls, cache.hits) == (3, 2)


def test_failures_are_asked_again(tmp_path: Path):
    inner = Counting()
    generator = CachedGenerator(inner, CallCache(tmp_path / "c.sqlite"))
    inner.down = True
    assert isinstance(generator.generate(jobs("a"))[0], Failure)
    inner.down = False
    assert generator.generate(jobs("a")) == [b"a 1"]


def test_records_come_back_equal(tmp_path: Path):
    inner = Counting()
    critic = CachedCritic(inner, CallCache(tmp_path / "c.sqlite"))
    case = CritiqueCase(before=None, after=b"x", prompt="p", used_prompt="p")
    assert critic.critique([case]) == critic.critique([case])
    assert inner.batches == [1]


@pytest.mark.parametrize(
    "other",
    [
        GenerationJob(prompt="ab", seed=1),
        GenerationJob(prompt="a", seed=2),
        GenerationJob(prompt="a", seed=1, source=b""),
        GenerationJob(prompt="a", seed=1, references=(b"x",)),
    ],
)
def test_keys_tell_calls_apart(other: GenerationJob):
    job = GenerationJob(prompt="a", seed=1)
    keys = {call_key("generator", "m", item) for item in (job, other)}
    assert len(keys) == 2
    assert call_key("generator", "m", job) != call_key("generator", "n", job)
    assert call_key("generator", "m", job) == call_key("generator", "m", job.model_copy())


def test_neighbouring_fields_do_not_run_together():
    one = Request(id="a", text="bc", captions=("d", "e"))
    two = Request(id="ab", text="c", captions=("de",))
    assert call_key("planner", "m", one) != call_key("planner", "m", two)


def test_kept_answers_of_all_stages_are_counted(tmp_path: Path):
    assert kept_answers(tmp_path) == (0, 0)
    for stage, answers in (("trajectories", 3), ("critic-data", 2)):
        cache = CallCache(tmp_path / CACHE / stage / "answers.sqlite", shared=True)
        for number in range(answers):
            cache.put(bytes([number]), b"x" * 1000)
        cache.close()
    count, size = kept_answers(tmp_path)
    assert count == 5 and size > 5000


def test_many_processes_may_share_a_file(tmp_path: Path):
    one, two = (CallCache(tmp_path / "c.sqlite", shared=True) for _ in range(2))
    one.put(b"k", b"answer")
    assert two.get(b"k") == b"answer"
    two.put(b"l", b"other")
    assert one.get(b"l") == b"other"
