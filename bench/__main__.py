"""`python -m bench`: measures this service on a stack of its own, side by side with baselines.

Progress goes to standard error, so that `--json -` on standard output stays clean. Exit codes: 0 fine, 1
failed, 2 wrong usage, 130 ended from outside; whatever was started is stopped in every case.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
import uvloop

from service.errors import ServiceError
from service.local.signals import ends_on_terminate, finish
from service.telemetry.terminal import out, say

from . import tables
from .ingest import measure as measure_ingest
from .latency import measure as measure_latency

_HELP = """Measure the service on real parts, each beside its baselines in the same run.

\b
python -m bench ingest                             about seven minutes on two cores
python -m bench ingest --requests 20000 --rounds 1 --json ingest.json
python -m bench latency --json - > latency.json    about five minutes
"""

app = typer.Typer(
    help=_HELP,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode=None,
)

Json = Annotated[
    Path | None,
    typer.Option("--json", help="Write the figures here as JSON; - is standard output."),
]


def _progress() -> Callable[[str], None]:
    began = time.monotonic()

    def show(text: str) -> None:
        say(f"[{time.monotonic() - began:6.1f} s] {text}", error=True)

    return show


def _show(table: object, document: dict[str, Any], where: Path | None) -> None:
    text = json.dumps(document, indent=2, ensure_ascii=False)
    if where is not None and str(where) == "-":
        say(text)
        return
    out().print(table)
    if where is not None:
        where.write_text(f"{text}\n", "utf-8")
        say(f"figures: {where}", error=True)


@app.command(
    epilog="Example: python -m bench ingest --requests 20000 --rounds 1 --json ingest.json"
)
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
    work = measure_ingest(requests, rounds, handler_requests, only or [], _progress())
    with ends_on_terminate():
        runs = finish(work, uvloop.run)
    _show(tables.ingest_table(runs), tables.ingest_document(runs), json_file)


@app.command(epilog="Example: python -m bench latency --requests 200 --warmup 50 --json -")
def latency(
    requests: Annotated[int, typer.Option(min=1, help="Requests measured.")] = 1_000,
    warmup: Annotated[int, typer.Option(min=0, help="Requests before, not measured.")] = 200,
    json_file: Json = None,
) -> None:
    """An idle service: request sent → submit at the net, and → `queued` read back.

    One request at a time, each really staged in S3, beside a minimal pipeline with the same guarantees,
    taking turns. Takes about five minutes.
    """
    with ends_on_terminate():
        found = finish(measure_latency(requests, warmup, _progress()), uvloop.run)
    table = tables.latency_table(found.spreads, found.ratio)
    _show(table, tables.latency_document(found.spreads, found.ratio, warmup=warmup), json_file)


def main() -> None:
    """The entry point of `python -m bench`. Ends the process with its exit code."""
    try:
        app(prog_name="python -m bench")
    except KeyboardInterrupt:
        sys.exit(130)
    except ServiceError as exc:
        say(f"error: {exc.message}", error=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
