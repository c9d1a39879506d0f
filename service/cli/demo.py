"""`fl-jobs demo`: everything on this machine, from nothing to a trained model and how good it is."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Annotated, Final

import typer

from service.cli.local import one_line_errors
from service.demo import environment
from service.errors import MissingDependency
from service.local.component import require
from service.local.signals import ends_on_terminate
from service.telemetry.terminal import err, say

_BACKENDS: Final = ("embedded",)


def demo(
    backend: Annotated[
        str, typer.Option(help="The FL runtime that trains; here it is `embedded`.")
    ] = "embedded",
    dir: Annotated[
        Path, typer.Option(help="Where the demo's stack, data, picture and results are.")
    ] = Path("fl-demo"),
    rounds: Annotated[
        int | None,
        typer.Option(min=1, max=1000, help="Global rounds, in place of the model's own 20."),
    ] = None,
    keep: Annotated[
        bool, typer.Option("--keep", help="Leave the stack running, to look around in it.")
    ] = False,
    use_environment: Annotated[
        bool,
        typer.Option(
            "--use-environment",
            help="Take the parts that FL_KAFKA__BOOTSTRAP_SERVERS, FL_DATABASE__DSN and "
            "FL_S3__ENDPOINT_URL name, and their settings, in place of own ones.",
        ),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Train a breast-cancer model over three hospitals, on a whole real stack on this machine.

    Kafka, PostgreSQL, S3 and an FL net are started, then the service; the request goes through
    Kafka like everybody's. At the end everything is stopped; the folder stays and makes the next
    demo quicker. Settings of another stack in the environment (FL_KAFKA__*, FL_DATABASE__*, FL_S3__*,
    FL_HTTP__*, FL_REGISTRY_FILE, AWS_*, ...) are ignored, unless --use-environment is given: then the
    demo writes its registry, topics and job there.

    \b
    fl-jobs demo
    fl-jobs demo --rounds 50 --json > demo.json
    kill -9 $(cat fl-demo/service.pid)     meanwhile: the job still completes
    """
    if backend not in _BACKENDS:
        raise typer.BadParameter(f"{backend!r} is none of: {', '.join(_BACKENDS)}")
    began = time.monotonic()
    if not use_environment and (said := environment.forget(os.environ)):
        say(said, error=True)
    # Its font cache stays in the demo's folder, wherever the home folder is.
    os.environ.setdefault("MPLCONFIGDIR", str(dir.absolute() / "cache"))
    console = err()
    with one_line_errors(), ends_on_terminate():
        for module in ("numpy", "sklearn", "matplotlib"):
            require(module, "the demo")
        from service.demo import report, runner

        try:
            result = runner.run_demo(dir, rounds, console, quiet=as_json, keep=keep, began=began)
            report.show_result(result, as_json=as_json)
        except OSError as exc:
            raise MissingDependency(
                f"{exc.strerror}: {exc.filename or dir}; choose a --dir"
            ) from exc
    if not result.completed:
        raise typer.Exit(1)
