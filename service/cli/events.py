"""`fl-jobs events`: the lifecycle topic as its consumers see it."""

from __future__ import annotations

import contextlib
import json
from typing import Annotated, Any

import typer
from rich.text import Text

from service.cli.command import AsJson, EnvFile, run_async, settings_of
from service.kafka.read import Record, tail
from service.kafka.topics import Topics
from service.settings import Settings
from service.telemetry.terminal import json_text, out, say, styled

app = typer.Typer(no_args_is_help=True, help="The lifecycle topic.")


@app.callback()
def _group() -> None:
    """The lifecycle topic."""


@app.command("tail")
def tail_events(
    job: Annotated[str | None, typer.Option("--job", help="Only this job's.")] = None,
    from_start: Annotated[
        bool, typer.Option("--from-start", help="Everything that is still kept, then what comes.")
    ] = False,
    no_follow: Annotated[
        bool, typer.Option("--no-follow", help="End at what is there now.")
    ] = False,
    env_file: EnvFile = None,
    as_json: AsJson = False,
) -> None:
    """Print events as they are published, read committed, until Ctrl-C.

    \b
    fl-jobs events tail --from-start --job 6f1c…
    """
    with contextlib.suppress(KeyboardInterrupt):
        run_async(_tail(settings_of(env_file), job, from_start, not no_follow, as_json))


async def _tail(
    settings: Settings, job: str | None, from_start: bool, follow: bool, as_json: bool
) -> None:
    topic = Topics(settings.kafka.topic_prefix).lifecycle
    console = out()
    async for record in tail(settings.kafka, topic, from_start=from_start, follow=follow):
        if job is None or record.key == job:
            if as_json:
                say(as_line(record))
            else:
                console.print(_pretty(record), soft_wrap=True)


def as_line(record: Record) -> str:
    """One event as one line of JSON: its attributes and its data."""
    attributes = {
        name.removeprefix("ce_"): value
        for name, value in record.headers.items()
        if name.startswith("ce_")
    }
    data = _data_of(record)
    position = {"partition": record.partition, "offset": record.offset}
    return json_text({**attributes, **position, "data": data})


def _data_of(record: Record) -> Any:
    """The event's data; of what is no JSON (no record of ours) its text."""
    try:
        return json.loads(record.value or b"null")
    except (ValueError, RecursionError):
        return (record.value or b"").decode("utf-8", "replace")


def _pretty(record: Record) -> Text:
    found = _data_of(record)
    data = found if isinstance(found, dict) else {}
    event_name = record.headers.get("ce_type", "?").removesuffix(".v1")
    reason = data.get("reason")
    cause = f"  {reason.get('code')}: {reason.get('message')}" if isinstance(reason, dict) else ""
    rounds = f"  round {data['global_round']}" if "global_round" in data else ""
    sequence = record.headers.get("ce_sequence", "-")
    when = record.headers.get("ce_time", "")
    return styled(
        (when, "dim"),
        f" {record.key} ",
        (f"#{sequence}", "dim"),
        " ",
        (event_name, "bold"),
        rounds,
        cause,
    )
