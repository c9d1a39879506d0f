"""`fl-jobs offsets`: where the service reads on, and what to do where the log no longer has it."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer
from rich.table import Table

from service.cli.command import (
    AsJson,
    EnvFile,
    pool_of,
    run_async,
    settings_of,
)
from service.errors import Invalid
from service.ingest.gaps import Gap, find_gap
from service.kafka import PartitionId
from service.kafka.groups import log_ends
from service.kafka.topics import Topics, partition_counts
from service.settings import Settings
from service.store.inbox import reset_offsets
from service.store.queries import Queries
from service.store.records import OffsetFence, OffsetMoved
from service.telemetry.terminal import out, print_json, say

app = typer.Typer(no_args_is_help=True, help="Where the service reads on in the inbound topics.")


@app.command("list", epilog="Example: fl-jobs offsets list --json")
def list_offsets(env_file: EnvFile = None, as_json: AsJson = False) -> None:
    """By partition: the next offset, the log's start and end, records that wait, and gaps."""
    rows = run_async(_rows(settings_of(env_file)))
    if as_json:
        print_json(rows)
    else:
        out().print(_table(rows) if rows else "no inbound topic is there yet")


@app.command(
    epilog="Example: fl-jobs offsets accept fl.training-requests.v1/3. All gaps, unattended:"
    " fl-jobs offsets accept --all --yes"
)
def accept(
    partitions: Annotated[
        list[str] | None, typer.Argument(help="TOPIC/PARTITION as `list` prints it.")
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="Every partition with a gap.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Don't ask.")] = False,
    env_file: EnvFile = None,
    as_json: AsJson = False,
) -> None:
    """Continue at the log's start where the log no longer has the records to read next.

    Records that expired unread stay unread. The consumer stopped at such a gap: start the service again
    afterwards. A partition without a gap is never moved.
    """
    if bool(partitions) == every:
        raise typer.BadParameter("name partitions, or give --all")
    settings = settings_of(env_file)
    gaps = run_async(
        _gaps(settings, None if every else [_partition_id(p) for p in partitions or ()])
    )
    if gaps and not yes:
        _confirm(gaps)
    run_async(_accept(settings, gaps))
    done = [
        {
            "topic": gap.partition_id[0],
            "partition": gap.partition_id[1],
            "from": gap.stored,
            "to": gap.start,
            "lost": gap.lost,
        }
        for gap in gaps
    ]
    if as_json:
        print_json({"accepted": done})
        return
    for entry in done:
        say(
            f"{entry['topic']}/{entry['partition']}: continues at {entry['to']} instead of {entry['from']},"
            f" {entry['lost']} records never read"
        )
    say("start the service again" if done else "no partition has a gap: nothing to accept")


def _confirm(gaps: list[Gap]) -> None:
    """Raises typer.Abort when the answer is no, Invalid where nobody can be asked."""
    for gap in gaps:
        say(f"{gap.cause}; it would continue at {gap.start}", error=True)
    if not sys.stdin.isatty():
        raise Invalid("nobody is there to confirm: give --yes")
    typer.confirm("Continue there?", abort=True, err=True)


def _partition_id(text: str) -> PartitionId:
    topic, _, number = text.rpartition("/")
    if not topic or not (number.isascii() and number.isdigit()):
        raise typer.BadParameter(
            f"{text[:80]} is not TOPIC/PARTITION; `offsets list` prints them so"
        )
    return topic, int(number)


async def _rows(settings: Settings) -> list[dict[str, Any]]:
    """One row for each partition of the inbound topics. Raises errors.Transient."""
    counts = await partition_counts(
        settings.kafka, list(Topics(settings.kafka.topic_prefix).inbound)
    )
    ends = await log_ends(settings.kafka, counts)
    async with pool_of(settings) as pool:
        stored = await Queries(pool).offsets(settings.kafka.group_id)
    rows = []
    for partition_id, (start, end) in sorted(ends.items()):
        next_offset = stored.get(partition_id)
        gap = None if next_offset is None else find_gap(partition_id, next_offset, start, end)
        rows.append(
            {
                "topic": partition_id[0],
                "partition": partition_id[1],
                "next_offset": next_offset,
                "log_start": start,
                "log_end": end,
                "waiting": end - max(start, min(next_offset or start, end)),
                "gap": None if gap is None else gap.cause,
            }
        )
    return rows


def _table(rows: list[dict[str, Any]]) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("partition", no_wrap=True)
    for name in ("next", "log start", "log end", "waiting"):
        table.add_column(name, justify="right")
    table.add_column("gap", overflow="fold")
    for row in rows:
        table.add_row(
            f"{row['topic']}/{row['partition']}",
            "-" if row["next_offset"] is None else str(row["next_offset"]),
            *(str(row[name]) for name in ("log_start", "log_end", "waiting")),
            row["gap"] or "",
        )
    return table


async def _gaps(settings: Settings, wanted: list[PartitionId] | None) -> list[Gap]:
    """The gaps of these partitions, or of all. Raises Invalid for one that is named and has none."""
    rows = {(row["topic"], row["partition"]): row for row in await _rows(settings)}
    for topic, number in wanted or ():
        row = rows.get((topic, number))
        if row is None:
            raise Invalid(f"{topic}/{number} is not a partition of the inbound topics")
        if row["gap"] is None:
            raise Invalid(f"{topic}/{number} has no gap: it is never moved")
    return [
        Gap(partition_id, row["next_offset"], row["log_start"], row["log_end"])
        for partition_id, row in rows.items()
        if row["gap"] is not None and (wanted is None or partition_id in wanted)
    ]


async def _accept(settings: Settings, gaps: list[Gap]) -> None:
    entries = [(*gap.partition_id, gap.stored, gap.start) for gap in gaps]
    if not entries:
        return
    async with pool_of(settings) as pool:
        try:
            await reset_offsets(pool, OffsetFence(entries, settings.kafka.group_id))
        except OffsetMoved as exc:
            raise Invalid(f"an offset moved meanwhile, nothing was changed: {exc.message}") from exc
