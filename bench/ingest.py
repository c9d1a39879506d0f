"""Ingest: requests on the topic → rows in Postgres → lifecycle and state topics, beside two baselines.

Everything is produced before; then a contestant's processes start on topics and a database of its own. The
time runs from the start of the first batch's transaction (the oldest job row) to the moment at which the
last lifecycle and state record can be read by a read-committed reader. After each run rows and records are
counted; a wrong count is an error, not a figure. A round is every contestant once, one after the other.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from service.errors import Transient
from service.kafka.topics import Topics

from .environment import BenchRun, BenchStack, Say, bench_stack
from .processes import Process
from .requests import fill
from .statistics import TimedRun
from .topic_watch import until_complete

SEQUENTIAL: Final = "sequential consumer"
HANDLER: Final = "FastStream handler"
OURS: Final = "service, one process"
OURS_TWO: Final = "service, ingest + relay"


@dataclass(frozen=True, slots=True)
class Contestant:
    """Who runs: each of `programs` is a module and its arguments. `requests` None: the whole number."""

    who: str
    short: str
    programs: Sequence[tuple[str, ...]]
    requests: int | None = None


def contestants(handler_requests: int) -> list[Contestant]:
    """In the order of a round."""
    return [
        Contestant(
            OURS_TWO,
            "two",
            [("service", "run", "--role", "relay"), ("service", "run", "--role", "ingest")],
        ),
        Contestant(SEQUENTIAL, "floor", [(".sequential_baseline",)]),
        Contestant(OURS, "one", [("service", "run", "--role", "relay", "--role", "ingest")]),
        Contestant(HANDLER, "handler", [(".faststream_handler",)], handler_requests),
    ]


async def measure(
    requests: int, rounds: int, handler_requests: int, only: Sequence[str], say: Say
) -> list[TimedRun]:
    """All runs, round by round. Raises errors.MissingDependency, errors.Transient."""
    runs: list[TimedRun] = []
    chosen = [c for c in contestants(handler_requests) if not only or c.short in only]
    async with bench_stack(say, object_store=False) as here:
        for number in range(1, rounds + 1):
            for contestant in chosen:
                run = await _one(here, contestant, number, requests, say)
                say(f"round {number}: {run.who}: {run.rate:,.0f} requests/s")
                runs.append(run)
    return runs


async def _one(here: BenchStack, who: Contestant, number: int, requests: int, say: Say) -> TimedRun:
    count = who.requests or requests
    async with here.run(f"bench-{number}-{who.short}") as bench_run:
        topics = Topics(bench_run.settings.kafka.topic_prefix)
        kafka = bench_run.settings.kafka
        prefix = f"round {number}: {who.who}"
        await fill(kafka, topics.requests, count, number, _ticker(say, f"{prefix}: sent", count))
        await here.settle()
        processes: list[Process] = []
        try:
            for program in who.programs:
                processes.append(bench_run.start(*program))
                if "relay" in program:
                    await _leads(bench_run, processes[-1])
            seen = await until_complete(
                kafka,
                [topics.lifecycle, topics.job_state],
                kafka.partitions,
                count,
                seconds=120 + count / 40,
                check=_checker(processes),
                progress=_ticker(say, f"{prefix}: out", count),
            )
            began, batches = await _rows(bench_run, count)
            say(f"{prefix}: {count / batches:,.0f} requests in a transaction")
            return _run(who, number, count, seen.last - began, processes)
        finally:
            for process in processes:
                process.stop()


def _checker(processes: Sequence[Process]) -> Callable[[], None]:
    def check() -> None:
        for process in processes:
            process.check()

    return check


def _run(
    who: Contestant, number: int, count: int, seconds: float, processes: Sequence[Process]
) -> TimedRun:
    memory = {process.name: process.memory() for process in processes}
    known = [found for found in memory.values() if found is not None]
    cpu = [used for process in processes if (used := process.cpu()) is not None]
    pss = [found.pss for found in known if found.pss is not None]
    return TimedRun(
        who.who,
        number,
        count,
        seconds,
        sum(found.rss for found in known) if known else None,
        sum(pss) if pss else None,
        {name: found.rss if found else None for name, found in memory.items()},
        sum(cpu) if cpu else None,
    )


async def _leads(bench_run: BenchRun, relay: Process) -> None:
    """Wait until a relay process has its lease: started and warm, as the service is in production."""
    connection = await bench_run.connect()
    try:
        for _ in range(300):
            relay.check()
            if await connection.fetchval("SELECT count(*) FROM lease WHERE name LIKE 'relay:%'"):
                return
            await asyncio.sleep(0.1)
    finally:
        await connection.close()
    raise Transient("the relay did not begin within 30 s")


async def _rows(bench_run: BenchRun, count: int) -> tuple[float, int]:
    """Check that every row is there; when the first was written, in seconds since 1970, and how many
    transactions wrote them."""
    connection = await bench_run.connect()
    try:
        found: Any = await connection.fetchrow(
            "SELECT (SELECT count(*) FROM job) AS jobs, (SELECT count(*) FROM event) AS events, "
            "(SELECT count(*) FROM ready) AS ready, "
            "(SELECT count(DISTINCT created_at) FROM job) AS batches, "
            "(SELECT extract(epoch FROM min(created_at)) FROM job) AS began"
        )
    finally:
        await connection.close()
    for what in ("jobs", "events", "ready"):
        if found[what] != count:
            raise Transient(f"{bench_run.name}: {found[what]} {what} for {count} requests")
    return float(found["began"]), found["batches"]


def _ticker(say: Say, what: str, total: int) -> Any:
    """Says how far it is, every two seconds."""
    last_said = [time.monotonic()]

    def tell(done: int) -> None:
        if time.monotonic() - last_said[0] >= 2:
            last_said[0] = time.monotonic()
            say(f"{what} {min(done, total):,} of {total:,}")

    return tell
