"""What all remote backends share, through the OpenAI backend and a local server."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest
from model_server import (
    MODEL,
    SCORE,
    SETTINGS,
    ModelServer,
    Said,
    gemini,
    openai,
    openai_error,
    picture,
    reason,
    remotes,
    serving,
)
from tiny_project.project import free_port

from interloom.backends.gemini import GeminiChat
from interloom.backends.lanes import Lane, retry_after
from interloom.backends.ledger import Ledger
from interloom.backends.openai import OpenAIChat
from interloom.errors import InterloomError
from interloom.records import Failure, Score
from interloom.roles import JudgeCase
from interloom.settings.models import PriceSettings

GOOD = Score(semantic=6.5, quality=7)
USD = 0.0006
"""What one of the server's answers costs: 100 tokens read, 50 written."""
FREE = {MODEL: PriceSettings(input=0, output=0, image=0)}


def cases(count: int) -> list[JudgeCase]:
    return [JudgeCase(before=None, after=picture(), prompt=f"red {n}") for n in range(count)]


def chat(folder: Path, url: str, **changes: Any) -> OpenAIChat:
    opened = remotes(folder, "openai", url, **{"api_key_env": ()} | changes).open("openai")
    return OpenAIChat(opened, MODEL, SETTINGS.teacher)


def spent(folder: Path) -> float:
    return Ledger(folder / "ledger.sqlite").spent("openai", MODEL)[0]


def test_calls_go_together_up_to_the_limit(tmp_path: Path):
    with serving(openai(SCORE, delay=0.1)) as server:
        model = chat(tmp_path, server.url, concurrency=4, prices=FREE)
        assert model.score(cases(12)) == [GOOD] * 12
    assert server.at_once == 4


def test_equal_questions_are_asked_once(tmp_path: Path):
    with serving(openai(SCORE)) as server:
        assert chat(tmp_path, server.url).score(cases(1) * 3) == [GOOD] * 3
    assert len(server.asked) == 1


def test_tokens_come_at_the_rate(tmp_path: Path):
    lane = Lane("", interval=0.5, slack=1.0)
    waits = [lane.reserve() for _ in range(5)]
    assert waits[:3] == [0, 0, 0] and waits[3:] == pytest.approx([0.5, 1.0], abs=0.4)
    with serving(openai(SCORE)) as server:
        model = chat(tmp_path, server.url, requests_per_minute=600, concurrency=20, prices=FREE)
        began = time.monotonic()
        model.score(cases(15))
    assert time.monotonic() - began >= 0.4, "ten at once, then one every 0.1 s"


def test_keys_take_turns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("KEY_A", "a")
    monkeypatch.setenv("KEY_B", "b")
    monkeypatch.setenv("KEY_C", "b")
    monkeypatch.delenv("KEY_D", raising=False)
    names = ("KEY_A", "KEY_B", "KEY_C", "KEY_D")
    with serving(openai(SCORE)) as server:
        model = chat(tmp_path, server.url, api_key_env=names, concurrency=1)
        model.score(cases(6))
    used = [asked.headers["authorization"] for asked in server.asked]
    assert sorted(used) == ["Bearer a"] * 3 + ["Bearer b"] * 3
    assert used[0] != used[1] != used[2]


def test_a_key_at_its_limit_rests_and_the_other_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("KEY_A", "a")
    monkeypatch.setenv("KEY_B", "b")

    def limited(asked: Any) -> Said:
        if asked.headers["authorization"] == "Bearer a":
            return openai_error(429, "rate_limit_exceeded", headers={"retry-after": "3600"})
        return openai(SCORE)

    with serving(limited) as server:
        model = chat(tmp_path, server.url, api_key_env=("KEY_A", "KEY_B"), concurrency=1)
        assert model.score(cases(6)) == [GOOD] * 6
    assert len(server.asked) == 7


def test_retry_after_is_kept(tmp_path: Path):
    times: list[float] = []

    def limited(asked: Any) -> Said:
        times.append(time.monotonic())
        if asked.number == 0:
            return openai_error(429, "rate_limit_exceeded", headers={"retry-after": "1"})
        return openai(SCORE)

    with serving(limited) as server:
        assert chat(tmp_path, server.url, max_wait_seconds=5).score(cases(1)) == [GOOD]
    assert times[1] - times[0] >= 0.95
    assert retry_after({"retry-after": "1.5"}) == 1.5
    soon = formatdate(time.time() + 60, usegmt=True)
    assert retry_after({"retry-after": soon}) == pytest.approx(60, abs=3)
    assert retry_after({}) == retry_after({"retry-after": "soon"}) == 0


def test_a_server_that_asks_for_too_much_patience_ends_the_run(tmp_path: Path):
    busy = openai_error(429, "rate_limit_exceeded", headers={"retry-after": "3600"})
    with serving(busy) as server, pytest.raises(InterloomError, match=r"asks to wait 3\d+ s"):
        chat(tmp_path, server.url).score(cases(3))
    assert len(server.asked) <= 3


def test_no_answer_in_time(tmp_path: Path):
    with serving(openai(SCORE, delay=3), openai(SCORE)) as server:
        model = chat(tmp_path, server.url, timeout_seconds=1.0)
        assert model.score(cases(1)) == [GOOD]
    with serving(openai(SCORE, delay=2)) as server:
        model = chat(tmp_path, server.url, timeout_seconds=0.2, tries=2)
        (failure,) = model.score(cases(2)[1:])
    assert "no answer in time (remote.openai.timeout_seconds = 0.2)" in reason(failure)
    (cost,) = Ledger(tmp_path / "ledger.sqlite").costs()
    assert (cost.calls, cost.failures) == (4, 3)


@pytest.mark.parametrize("backend", ["openai", "gemini"])
def test_refused_connection(backend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("GEMINI_API_KEY", "k")
    url = f"http://127.0.0.1:{free_port()}"
    if backend == "openai":
        model = chat(tmp_path, url)
    else:
        opened = remotes(tmp_path, "gemini", url).open("gemini")
        model = GeminiChat(opened, MODEL, SETTINGS.teacher)
    (failure,) = model.score(cases(1))
    assert "ConnectError" in reason(failure)


def test_gemini_that_takes_too_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("GEMINI_API_KEY", "k")
    with serving(gemini(SCORE, delay=2)) as server:
        opened = remotes(tmp_path, "gemini", server.url, timeout_seconds=0.2, tries=2)
        model = GeminiChat(opened.open("gemini"), MODEL, SETTINGS.teacher)
        assert "no answer in time" in reason(model.score(cases(1))[0])


def test_an_outage_ends_the_run(tmp_path: Path):
    with (
        serving(openai_error(500, None)) as server,
        pytest.raises(InterloomError, match=r"8 calls in a row failed, .*500 so it is"),
    ):
        chat(tmp_path, server.url, tries=2, concurrency=2).score(cases(40))
    assert len(server.asked) < 60, "not two tries of all"


def test_a_few_failures_do_not(tmp_path: Path):
    def flaky(asked: Any) -> Said:
        return openai_error(400, None) if b"red 3" in asked.body else openai(SCORE)

    with serving(flaky) as server:
        answers = chat(tmp_path, server.url).score(cases(6))
    assert [isinstance(answer, Failure) for answer in answers] == [n == 3 for n in range(6)]


def test_the_budget_stops_cleanly_and_all_answers_are_kept(tmp_path: Path):
    with serving(openai(SCORE, delay=0.02)) as server:
        model = chat(tmp_path, server.url, budget_usd=10.5 * USD)
        with pytest.raises(InterloomError, match=r"remote\.openai\.budget_usd = 0\.0063: 0\.006 "):
            model.score(cases(30))
        assert len(server.asked) == 10 and spent(tmp_path) == pytest.approx(10 * USD)
        with pytest.raises(InterloomError, match="budget_usd"):
            model.score(cases(40)[30:])
        assert len(server.asked) == 10
        richer = chat(tmp_path, server.url, budget_usd=1.0)
        assert richer.score(cases(30)) == [GOOD] * 30
    assert len(server.asked) == 30, "nothing was paid twice"


def test_no_money_no_calls_unless_they_are_free(tmp_path: Path):
    with serving(openai(SCORE)) as server:
        with pytest.raises(InterloomError, match="budget_usd = 0"):
            chat(tmp_path, server.url, budget_usd=0.0).score(cases(5))
        assert not server.asked
        assert chat(tmp_path, server.url, budget_usd=0.0, prices=FREE).score(cases(5)) == [GOOD] * 5


def test_answers_without_a_use_are_paid_too(tmp_path: Path):
    with serving(openai({"no": "score"})) as server:
        assert "unreadable answer" in reason(chat(tmp_path, server.url).score(cases(1))[0])
    assert spent(tmp_path) == pytest.approx(3 * USD)
    (cost,) = Ledger(tmp_path / "ledger.sqlite").costs()
    assert (cost.calls, cost.failures) == (3, 3)


def test_a_rerun_costs_nothing(tmp_path: Path):
    with serving(openai(SCORE)) as server:
        chat(tmp_path, server.url).score(cases(5))
    paid = spent(tmp_path)
    gone = remotes(tmp_path, "openai", "http://127.0.0.1:1", api_key_env=(), budget_usd=0.0)
    again = OpenAIChat(gone.open("openai"), MODEL, SETTINGS.teacher)
    assert again.score(cases(5)) == [GOOD] * 5
    assert (gone.calls, gone.hits) == (5, 5)
    assert spent(tmp_path) == paid


def test_another_question_is_asked(tmp_path: Path):
    with serving(openai(SCORE)) as server:
        chat(tmp_path, server.url).score(cases(1))
        warmer = SETTINGS.teacher.model_copy(update={"temperature": 0.5})
        opened = remotes(tmp_path, "openai", server.url, api_key_env=()).open("openai")
        OpenAIChat(opened, MODEL, warmer).score(cases(1))
    assert [asked.json["temperature"] for asked in server.asked] == [0.0, 0.5]


KILLED = """
import sys
from pathlib import Path
from test_remote import cases, chat
chat(Path(sys.argv[1]), sys.argv[2], concurrency=4).score(cases(40))
"""


def test_a_killed_run_loses_only_the_calls_in_flight(tmp_path: Path):
    here = Path(__file__).parent
    paths = os.pathsep.join([str(here), str(here.parent), *sys.path])
    with serving(openai(SCORE, delay=0.2)) as server:
        run = subprocess.Popen(
            [sys.executable, "-c", KILLED, str(tmp_path), server.url],
            env=os.environ | {"PYTHONPATH": paths},
        )
        wait_for(server, 12, run)
        run.kill()
        run.wait()
        time.sleep(0.5)
        before = len(server.asked)
        assert 12 <= before < 40
        assert chat(tmp_path, server.url, concurrency=4).score(cases(40)) == [GOOD] * 40
        assert len(server.asked) <= 40 + 4
        asked = len(server.asked)
        assert chat(tmp_path, server.url).score(cases(40)) == [GOOD] * 40
    assert len(server.asked) == asked


def wait_for(server: ModelServer, count: int, run: subprocess.Popen[bytes]) -> None:
    for _ in range(2000):
        if len(server.asked) >= count:
            return
        assert run.poll() is None, "it ended before it could be killed"
        time.sleep(0.05)
    raise AssertionError(f"{len(server.asked)} calls came in")
