"""`fl-jobs bench`: measures this service on a stack of its own, side by side with baselines.

Progress goes to standard error, so that `--json -` on standard output stays clean. In a checkout the
measurements lie in `bench/`, in a wheel inside the package: whichever is there is used.
"""

from __future__ import annotations

import importlib
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from service.errors import MissingDependency
from service.local.signals import ends_on_terminate, finish
from service.telemetry.terminal import out, say

app = typer.Typer(no_args_is_help=True, help="Measure, side by side with baselines.")

Json = Annotated[
    Path | None,
    typer.Option("--json", help="Write the figures here as JSON; - is standard output."),
]


def _bench(module: str) -> Any:
    """A module of the measurements. Raises MissingDependency where they or what they need are not
    installed."""
    for package in ("service.bench", "bench"):
        try:
            return importlib.import_module(f"{package}.{module}")
        except ModuleNotFoundError as exc:
            if exc.name not in (package, f"{package}.{module}"):
                raise MissingDependency(
                    f"{exc.name} is missing: pip install 'fl-job-service[bench]'"
                ) from exc
    raise MissingDependency("the measurements are not part of this installation")


def _teller() -> Callable[[str], None]:
    began = time.monotonic()

    def tell(text: str) -> None:
        say(f"[{time.monotonic() - began:6.1f} s] {text}", error=True)

    return tell


def _show(table: object, document: dict[str, Any], where: Path | None) -> None:
    text = json.dumps(document, indent=2, ensure_ascii=False)
    if where is not None and str(where) == "-":
        say(text)
        return
    out().print(table)
    if where is not None:
        where.write_text(f"{text}\n", "utf-8")
        say(f"figures: {where}", error=True)


@app.command(epilog="Example: fl-jobs bench ingest --requests 20000 --rounds 1 --json ingest.json")
def ingest(
    requests: Annotated[int, typer.Option(min=100, help="Requests per run.")] = 100_000,
    rounds: Annotated[int, typer.Option(min=1, max=20, help="Everybody runs this often.")] = 3,
    handler_requests: Annotated[
        int, typer.Option(min=10, help="Requests per run of the FastStream handler.")
    ] = 2_000,
    only: Annotated[
        list[str] | None,
        typer.Option(help="Run only these: two, floor, one, handler; may be repeated."),
    ] = None,
    json_file: Json = None,
) -> None:
    """Requests from their topic to the lifecycle and state topics, all rows in Postgres.

    Beside a hand-written sequential consumer that does the same work, and a FastStream handler per message
    that acknowledges after its transaction. Takes about seven minutes on two cores.
    """
    import uvloop

    work = _bench("ingest").measure(requests, rounds, handler_requests, only or [], _teller())
    with ends_on_terminate():
        runs = finish(work, uvloop.run)
    tables = _bench("tables")
    _show(tables.ingest_table(runs), tables.ingest_document(runs), json_file)


@app.command(epilog="Example: fl-jobs bench latency --requests 200 --warmup 50")
def latency(
    requests: Annotated[int, typer.Option(min=1, help="Requests measured.")] = 1_000,
    warmup: Annotated[int, typer.Option(min=0, help="Requests before, not measured.")] = 200,
    json_file: Json = None,
) -> None:
    """An idle service: request sent → submit at the net, and → `queued` read back.

    One request at a time, each really staged in S3, beside a minimal pipeline with the same guarantees,
    taking turns. Takes about five minutes.
    """
    import uvloop

    with ends_on_terminate():
        found = finish(_bench("latency").measure(requests, warmup, _teller()), uvloop.run)
    tables = _bench("tables")
    table = tables.latency_table(found.spreads, found.ratio)
    _show(table, tables.latency_document(found.spreads, found.ratio, warmup=warmup), json_file)
