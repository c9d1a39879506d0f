"""`fl-jobs dead-letters`: records that could not be used, why, and another try."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.table import Table

from service.cli.command import AsJson, EnvFile, pool_of, run_async, settings_of
from service.errors import Invalid
from service.kafka.dead_letter_headers import redriven
from service.kafka.publish import publish
from service.settings import Settings
from service.store.queries import Queries
from service.store.records import UNREADABLE
from service.telemetry.terminal import line, out, print_json, say

app = typer.Typer(no_args_is_help=True, help="Records that could not be used.")

Where = Annotated[str, typer.Argument(help="TOPIC/PARTITION/OFFSET as `list` prints it.")]


@app.command("list", epilog="Example: fl-jobs dead-letters list --json")
def list_letters(
    topic: Annotated[str | None, typer.Option("--topic", help="Only those of this topic.")] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, max=10_000, help="So many at most.")] = 30,
    env_file: EnvFile = None,
    as_json: AsJson = False,
) -> None:
    """The newest first, with the cause."""
    rows = run_async(_list(settings_of(env_file), topic, limit))
    if as_json:
        print_json(rows)
        return
    table = Table(box=None, pad_edge=False)
    table.add_column("record", no_wrap=True, min_width=30)
    for name in ("kind", "cause", "at"):
        table.add_column(name, overflow="fold")
    for row in rows:
        where = line(f"{row['topic']}/{row['partition']}/{row['offset']}")
        at = row["at"].strftime("%m-%d %H:%M:%S")
        table.add_row(where, line(row["kind"]), line(row["message"])[:200], at)
    out().print(table if rows else "no dead letters")


async def _list(settings: Settings, topic: str | None, limit: int) -> list[dict[str, Any]]:
    async with pool_of(settings) as pool:
        return await Queries(pool).dead_letters(topic, limit)


@app.command(epilog="Example: fl-jobs dead-letters show fl.training-requests.v1/3/17")
def show(where: Where, env_file: EnvFile = None, as_json: AsJson = False) -> None:
    """One record as it came, with everything that is wrong with it."""
    letter = run_async(_get(settings_of(env_file), where))
    shown = {
        **letter,
        "key": _text(letter["key"]),
        "value": _text(letter["value"]),
        "headers": {name: _text(value) for name, value in letter["headers"]},
    }
    if as_json:
        print_json(shown)
        return
    for name in ("kind", "message", "at", "published_at", "key", "headers", "value"):
        say(f"{name}: {line(shown[name])}")


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode("utf-8", "backslashreplace")


async def _get(settings: Settings, where: str) -> dict[str, Any]:
    topic, _, rest = where.partition("/")
    partition, _, offset = rest.partition("/")
    if not (partition.isdigit() and offset.isdigit()):
        raise typer.BadParameter(
            f"{where} is not TOPIC/PARTITION/OFFSET; `dead-letters list` prints them so"
        )
    async with pool_of(settings) as pool:
        found = await Queries(pool).dead_letter(topic, int(partition), int(offset))
    if found is None:
        raise Invalid(f"no dead letter {where}")
    return found


@app.command(epilog="Example: fl-jobs dead-letters redrive fl.training-requests.v1/3/17")
def redrive(where: Where, env_file: EnvFile = None, as_json: AsJson = False) -> None:
    """Publish the record once more on its topic, as it came: after the cause was mended.

    One header, `fl-redrives`, counts how often.
    """
    settings = settings_of(env_file)
    letter = run_async(_get(settings, where))
    if letter["kind"] == UNREADABLE:
        raise Invalid(
            f"{where} is a batch whose records can't be read; only its producer can send them again"
        )
    headers = redriven(letter["headers"])
    offset = run_async(
        publish(settings.kafka, letter["topic"], letter["key"], letter["value"], headers)
    )
    if as_json:
        print_json({"topic": letter["topic"], "offset": offset})
        return
    say(f"published again on {letter['topic']} at offset {offset}")
