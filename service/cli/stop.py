"""`fl-jobs stop`: ask for a stop, by job or by model."""

from __future__ import annotations

import getpass
from typing import Annotated

import typer

from service.cli.command import AsJson, EnvFile, read_uuid, run_async, settings_of
from service.cli.follow import follow
from service.kafka.stop_request import publish_stop
from service.telemetry.terminal import print_json, say


def stop(
    job: Annotated[str | None, typer.Argument(help="The job's id.")] = None,
    model: Annotated[
        str | None, typer.Option("--model", help="Stop all unfinished jobs of this model instead.")
    ] = None,
    reason: Annotated[
        str | None, typer.Option("--reason", help="The reason, published with the stop.")
    ] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Until the job has stopped.")] = False,
    env_file: EnvFile = None,
    as_json: AsJson = False,
) -> None:
    """Ask for a stop. It takes precedence in every non-terminal state.

    \b
    fl-jobs stop 6f1c… --reason "wrong data" --wait
    fl-jobs stop --model 77aa…
    """
    if (job is None) == (model is None):
        raise typer.BadParameter("name either a job or --model")
    settings = settings_of(env_file)
    name, given = ("job_id", job) if job is not None else ("model_id", model)
    target = read_uuid(given or "", name)
    run_async(publish_stop(settings, name, target, by=getpass.getuser(), reason=reason))
    if wait and job is not None:
        state = run_async(follow(settings, target, quiet=as_json))
        if as_json:
            print_json(state)
        raise typer.Exit(0 if state["state"] == "stopped" else 1)
    if as_json:
        print_json({name: str(target), "requested": True})
    else:
        say(
            f"a stop of {name} {target} is on its way: `fl-jobs jobs list` shows the outcome;"
            " where nothing is known by that id, it waits for the request"
        )
