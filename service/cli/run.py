"""`fl-jobs run`: the service in this process."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from service.cli.command import EnvFile, settings_of
from service.telemetry import logs


def run(
    role: Annotated[
        list[str] | None,
        typer.Option(
            "--role",
            help="all, ingest, schedule, relay, reconcile, web; may be given several times.",
        ),
    ] = None,
    accept_log: Annotated[
        bool,
        typer.Option(
            "--accept-log", help="Go on from the lifecycle topic's log, by your word; see doctor."
        ),
    ] = False,
    pid_file: Annotated[
        Path | None, typer.Option("--pid-file", help="Write the process id here.")
    ] = None,
    env_file: EnvFile = None,
) -> None:
    """Run the service until SIGTERM or Ctrl-C.

    Any number of processes may run the same roles side by side; each job is driven by one of them.

    \b
    fl-jobs run --env-file .local/env
    fl-jobs run --role ingest --role relay
    """
    import uvloop

    from service import app

    settings = settings_of(env_file)
    if accept_log:
        settings = settings.model_copy(update={"relay_accept_log": True})
    logs.configure(settings.log.level, settings.log.format, sys.stderr)
    try:
        roles = [app.Role(name) for name in role or ["all"]]
    except ValueError as exc:
        raise typer.BadParameter(f"{exc}; roles are {', '.join(app.Role)}") from exc
    if pid_file is not None:
        import os

        pid_file.write_text(f"{os.getpid()}\n")
    uvloop.run(app.run(settings, roles))
