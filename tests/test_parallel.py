from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from interloom.parallel import Window, merged

PATIENCE = 20


def test_all_items_come_and_those_of_a_stream_in_order():
    found = list(merged((iter([(s, n) for n in range(5)]) for s in range(7)), threads=3))
    assert sorted(found) == [(s, n) for s in range(7) for n in range(5)]
    for stream in range(7):
        assert [n for s, n in found if s == stream] == list(range(5))
    assert list(merged([], threads=2)) == []


def test_so_many_streams_go_at_once():
    together = threading.Barrier(4)

    def stream(number: int) -> Iterator[int]:
        together.wait(PATIENCE)
        yield number

    assert sorted(merged(map(stream, range(8)), threads=4)) == list(range(8))


def test_an_error_ends_all():
    begun: list[int] = []

    def stream(number: int) -> Iterator[int]:
        begun.append(number)
        if number == 3:
            raise ValueError("the third")
        yield number

    with pytest.raises(ValueError, match="the third"):
        list(merged(map(stream, range(10_000)), threads=2))
    assert len(begun) < 10_000


def test_the_window_keeps_work_together():
    window, begun = Window(3), list[int]()
    go_on = threading.Event()

    def work() -> None:
        for place, _ in window.numbered("abcdefgh"):
            begun.append(place)
            if place == 2:
                go_on.set()

    worker = threading.Thread(target=work, daemon=True)
    worker.start()
    assert go_on.wait(PATIENCE)
    worker.join(0.1)
    assert begun == [0, 1, 2] and worker.is_alive()
    window.advance()
    window.advance()
    while len(begun) < 5:
        worker.join(0.01)
    window.close()
    worker.join(PATIENCE)
    assert begun == [0, 1, 2, 3, 4]
