"""The parts of the trajectories as Prefect tasks on a Dask cluster, one part a worker at a time.

Workers need what the stage itself needs: the project folder under the same path, the models, API
keys in their environment and a Prefect API they can reach; for workers of this machine a server is
started if there is none. Pictures never travel through the
scheduler: every task writes its own shards beside those of the others.
"""

from __future__ import annotations

import os
import pickle
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from interloom.construct import parts
from interloom.construct.division import all_parts
from interloom.construct.parts import Places, Tally
from interloom.errors import InterloomError

if TYPE_CHECKING:
    from interloom.settings.file import Settings
    from interloom.settings.models import RemoteSettings, RemotesSettings


PATIENCE = 20
"""Seconds for a scheduler to answer."""


def share_of(settings: RemotesSettings, workers: int) -> RemotesSettings:
    """Limits for one of so many workers, which know nothing of each other's calls."""

    def part(remote: RemoteSettings) -> RemoteSettings:
        return remote.model_copy(
            update={
                "concurrency": max(1, remote.concurrency // workers),
                "requests_per_minute": remote.requests_per_minute / workers,
            }
        )

    return settings.model_copy(update={name: part(remote) for name, remote in settings})


def do_part(job: bytes, number: int) -> tuple[int, Tally]:
    """What a worker does: its requests, and what came of them."""
    settings, places, prompts, work = pickle.loads(job)
    part = all_parts(settings, prompts)[number]
    mine = replace(places, calls=work / f"calls-{number:05d}.sqlite")
    return len(part.requests), parts.carry_out(part, settings, mine)


def carry_out(
    settings: Settings, places: Places, prompts: Path, work: Path, count: int
) -> Iterator[tuple[int, Tally]]:
    """Carry all ``count`` parts out; gives requests and tally of each, in order.

    Raises:
        InterloomError: there is no such cluster, or what a part raised.
    """
    runner = settings.trajectories.runner
    try:
        from distributed import Client, LocalCluster
    except ModuleNotFoundError:
        raise InterloomError(
            f"trajectories.runner = {runner}: Dask is not installed; "
            "run `pip install -c constraints.txt prefect-dask`"
        ) from None

    if runner.startswith("dask:"):
        workers = int(runner.removeprefix("dask:"))
        # Dask would end workers at its own idea of their share of the memory.
        options: Any = {"memory_limit": 0, "dashboard_address": None}
        cluster: Any
        from flows.launch import prefect_server

        with (
            prefect_server(places.ledger.parents[1]),  # keeps its runs in the project
            LocalCluster(n_workers=workers, threads_per_worker=1, **options) as cluster,
        ):
            yield from _submit(cluster.scheduler_address, settings, places, prompts, work, count)
        return
    try:
        Client(runner, timeout=PATIENCE).close()
    except OSError as error:
        raise InterloomError(f"trajectories.runner: no scheduler at {runner} ({error})") from None
    if "PREFECT_API_URL" not in os.environ:
        raise InterloomError(
            f"trajectories.runner = {runner}: set PREFECT_API_URL to a Prefect server that its "
            "workers can reach (`prefect server start --host 0.0.0.0`)"
        )
    yield from _submit(runner, settings, places, prompts, work, count)


def _submit(
    address: str, settings: Settings, places: Places, prompts: Path, work: Path, count: int
) -> Iterator[tuple[int, Tally]]:
    from distributed import Client
    from prefect import flow, task
    from prefect.cache_policies import NO_CACHE
    from prefect_dask import DaskTaskRunner

    with Client(address) as client:
        workers = max(1, len(client.scheduler_info()["workers"]))
    mine: Any = settings.model_copy(update={"remote": share_of(settings.remote, workers)})
    job = pickle.dumps((mine, places, prompts, work))
    runner: Any = DaskTaskRunner(address=address)
    # Results are small and wanted here alone.
    one = task(name="trajectories-part", cache_policy=NO_CACHE, persist_result=False)(do_part)

    @flow(name="trajectories", task_runner=runner, persist_result=False)
    def all_of_them() -> Iterator[tuple[int, Tally]]:
        waiting = [one.submit(job, number) for number in range(count)]
        for future in waiting:
            yield future.result()

    yield from all_of_them()
