"""`fl-jobs local`: the embedded stack on this machine, from nothing to ready in one command.

Promises that after `up` every other command works with `--env-file <dir>/env`: the components run, and
topics, buckets, schema and registry are there. ComponentProgress goes to standard error, so that `--json`
on standard output stays clean.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.table import Table

from service.errors import ServiceError
from service.local.dependents import stop_dependents
from service.local.display import display
from service.local.preparation import prepare
from service.local.signals import ends_on_terminate, finish, shielded
from service.local.stack import ComponentStatus, Stack
from service.settings import load
from service.telemetry.terminal import out, print_json, say

app = typer.Typer(
    no_args_is_help=True,
    help="The embedded stack: Kafka, PostgreSQL, S3 and one FL net on this machine.",
)

_MIB: Final = 2**20
_DIR = typer.Option(help="Where the stack keeps its data, logs and settings.")
_JSON = typer.Option("--json", help="Print one JSON document.")

Dir = Annotated[Path, _DIR]
Json = Annotated[bool, _JSON]


@app.command(
    epilog="Example: fl-jobs local up && fl-jobs run --env-file .local/env",
)
def up(
    dir: Dir = Path(".local"),
    data_root: Annotated[
        Path | None,
        typer.Option(help="Folder with one folder of data per site (default: <dir>/data)."),
    ] = None,
    capacity: Annotated[
        int, typer.Option(min=1, max=64, help="How many jobs the embedded net runs at once.")
    ] = 1,
    as_json: Json = False,
) -> None:
    """Start what isn't running, and make topics, buckets, schema and a demo registry.

    A component is replaced by one of yours when its address is set: FL_KAFKA__BOOTSTRAP_SERVERS,
    FL_DATABASE__DSN, FL_S3__ENDPOINT_URL. Starting it again repairs what has died.
    """
    stack = Stack(dir, data_root, capacity=capacity)
    with one_line_errors(), ends_on_terminate(), display(quiet=as_json) as report:
        info = stack.up(report)
        os.environ.update(info.env)
        try:
            finish(prepare(load(), stack, report))
        except KeyboardInterrupt:
            with shielded():
                stack.rollback(info.started, report)
            raise
    if as_json:
        _print_json(stack, started=list(info.started))
        return
    out().print(_table(stack.status()))
    say(f"Settings: {_short(info.env_file)}")
    say(f"Logs:     {_short(stack.log_path('kafka').parent)}")
    say(f"Next:     fl-jobs run --env-file {_short(info.env_file)}")


@app.command(epilog="Example: fl-jobs local status --json")
def status(dir: Dir = Path(".local"), as_json: Json = False) -> None:
    """Show every component: state, address, memory. Exit code 1 when one isn't running."""
    stack = Stack(dir)
    components = stack.status()
    if as_json:
        _print_json(stack)
    else:
        out().print(_table(components))
        total = sum(component.pss or component.rss or 0 for component in components)
        if total:
            say(f"Together {total / _MIB:.0f} MiB; logs in {_short(stack.dir / 'logs')}")
    if any(component.state not in ("running", "external") for component in components):
        raise typer.Exit(1)


@app.command(epilog="Example: fl-jobs local down --wipe")
def down(
    dir: Dir = Path(".local"),
    wipe: Annotated[bool, typer.Option("--wipe", help="Delete all its data as well.")] = False,
    as_json: Json = False,
) -> None:
    """Stop every component, and before them a demo of this folder and the service that its `service.pid`
    names.

    Data is kept for the next `up` unless --wipe is given.
    """
    stack = Stack(dir)
    with one_line_errors(), display(quiet=as_json) as report:
        stopped = stop_dependents(stack.dir, report) + stack.down(report, wipe=wipe)
    if as_json:
        print_json({"dir": str(stack.dir), "stopped": stopped, "wiped": wipe}, indent=None)
    elif not stopped:
        say(f"Nothing of {_short(stack.dir)} was running.")


@contextmanager
def one_line_errors() -> Iterator[None]:
    try:
        yield
    except ServiceError as error:
        say(f"error: {error.message}", error=True)
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        say("interrupted; what this command started is stopped", error=True)
        raise typer.Exit(130) from None


def _table(components: list[ComponentStatus]) -> Table:
    table = Table(box=None, pad_edge=False)
    for heading in ("Part", "State", "Address", "Pid", "MiB"):
        right = heading in ("Pid", "MiB")
        table.add_column(heading, justify="right" if right else "left", overflow="fold")
    for component in components:
        memory = component.pss or component.rss
        table.add_row(
            component.name,
            component.state,
            component.endpoint,
            str(component.pid or ""),
            f"{memory / _MIB:.0f}" if memory else "",
        )
    return table


def _print_json(stack: Stack, **more: Any) -> None:
    components = [
        asdict(component) | {"log": str(component.log) if component.log else None}
        for component in stack.status()
    ]
    document = {"dir": str(stack.dir), "env_file": str(stack.env_path), **more, "parts": components}
    print_json(document)


def _short(path: Path) -> str:
    """The path as seen from here, where that is shorter, as a shell takes it."""
    here = Path.cwd()
    return shlex.quote(str(path.relative_to(here) if path.is_relative_to(here) else path))
