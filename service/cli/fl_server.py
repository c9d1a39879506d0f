"""`fl-jobs fl-server` (and `fl-api`, its first name): an FL-API server in the foreground.

Promise: exactly one line goes to standard output, `{"url": ...}` as JSON, once requests are
answered; everything else goes to standard error. Kafka's security settings come from the
FL_KAFKA__* environment, as for the service itself.
"""

from __future__ import annotations

import asyncio
from importlib.util import find_spec
from pathlib import Path
from socket import socket
from typing import Annotated

import typer

from service.errors import Invalid, MissingDependency, ServiceError
from service.fl_server.serving import listening, serve
from service.settings import KafkaSettings, load
from service.telemetry import logs
from service.telemetry.terminal import print_json, say

app = typer.Typer(
    no_args_is_help=True,
    help="Be an FL net: an FL-API server over an FL runtime, in the foreground.",
)

INSTALL_LINE = "pip install 'fl-job-service[local]'"


@app.callback()
def _group() -> None:
    """Be an FL net: an FL-API server over an FL runtime, in the foreground."""


@app.command(
    epilog="Example: fl-jobs fl-server embedded --dir net --slots Trust_1,Trust_2 --data-root data"
    " --kafka 127.0.0.1:9092. Take a site out: touch net/offline/Trust_2; back: rm it."
)
def embedded(
    dir: Annotated[Path, typer.Option(help="Folder of the net's state; kept over restarts.")],
    slots: Annotated[str, typer.Option(help="Names of the sites, separated by commas.")],
    data_root: Annotated[
        Path, typer.Option(help="Folder with one folder of data per site; made when missing.")
    ],
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0: any free one.")] = 0,
    name: Annotated[str, typer.Option(help="The net's name, in its reports' source.")] = "net-1",
    kafka: Annotated[
        str | None, typer.Option(help="HOST:PORT of a broker to report to; without: no reports.")
    ] = None,
    topic_prefix: Annotated[
        str | None, typer.Option(help="Prefix of the topics' names [FL_KAFKA__TOPIC_PREFIX].")
    ] = None,
    capacity: Annotated[int, typer.Option(min=1, help="Runs that train at once.")] = 1,
    fit_timeout: Annotated[
        float | None, typer.Option(help="Longest time of one fit or evaluate, in seconds.")
    ] = None,
    bundle_origin: Annotated[
        list[str] | None,
        typer.Option(
            help="Origin bundles may come from, such as https://s3.example.org; may be repeated."
            " This machine itself always may."
        ),
    ] = None,
) -> None:
    """An embedded net: numpy federated averaging with a process per site."""
    logs.configure("info", "json")
    try:
        if find_spec("numpy") is None:
            raise MissingDependency(f"the embedded net needs numpy: {INSTALL_LINE}")
        # Imported late: without the extra there is no numpy, and the line above says what to do.
        from service.fl_server.embedded.net import embedded_net

        connection = None if kafka is None else _connection(kafka, topic_prefix)
        wanted = [slot.strip() for slot in slots.split(",") if slot.strip()]

        async def run(bound: socket) -> None:
            net = embedded_net(
                dir,
                wanted,
                data_root,
                name=name,
                capacity=capacity,
                call_seconds=fit_timeout,
                connection=connection,
                bundle_origins=bundle_origin or (),
            )
            await serve(net.app, bound, _print_url)

        with listening(host, port) as bound:
            asyncio.run(run(bound))
    except ServiceError as exc:
        say(f"Error: {exc.message}", error=True)
        raise typer.Exit(2 if isinstance(exc, Invalid) else 1) from exc


def _print_url(url: str) -> None:
    print_json({"url": url}, indent=None)


def _connection(bootstrap: str, topic_prefix: str | None) -> KafkaSettings:
    prefix = {} if topic_prefix is None else {"topic_prefix": topic_prefix}
    return load().kafka.model_copy(update={"bootstrap_servers": bootstrap, **prefix})
