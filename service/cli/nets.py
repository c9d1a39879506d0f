"""`fl-jobs nets`: what the last poll of each net showed, and the operator's switches."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.table import Table

from service.cli.command import (
    AsJson,
    EnvFile,
    pool_of,
    read_uuid,
    run_async,
    settings_of,
)
from service.domain.commands import ReleaseReservation
from service.domain.decision import Outcome
from service.errors import Invalid
from service.kafka.topics import Topics
from service.settings import Settings
from service.store.outbox import EventOutbox
from service.store.queries import Queries
from service.store.registry import pause_hub, pause_net
from service.telemetry.terminal import line, out, print_json, say, styled

app = typer.Typer(no_args_is_help=True, help="Nets: list, status, pause, resume, release.")


@app.command("list", epilog="Example: fl-jobs nets list")
def list_nets(env_file: EnvFile = None, as_json: AsJson = False) -> None:
    """Every registered net in a line."""
    nets = run_async(_nets(settings_of(env_file)))
    if as_json:
        print_json(nets)
        return
    table = Table(box=None, pad_edge=False)
    for name in ("net", "state", "jobs", "online", "seen", "strays"):
        table.add_column(name)
    for net in nets:
        table.add_row(
            line(net["name"]),
            state_of(net),
            f"{net['occupied']}/{net['capacity']}",
            str(len(net["online"])),
            net["seen_at"].strftime("%H:%M:%S") if net["seen_at"] else "never",
            str(len(net["strays"])),
        )
    out().print(table if nets else "the registry has no nets: `fl-jobs registry apply FILE`")


def state_of(net: dict[str, Any]) -> str:
    """A net's state in a word."""
    if net["draining"]:
        return "draining"
    if net["paused"]:
        return "paused"
    if any(slot["in_doubt"] and slot["state"] == "quarantined" for slot in net["slots"]):
        return "in doubt"
    return "answering" if net["answering"] else "not answering"


async def _nets(settings: Settings) -> list[dict[str, Any]]:
    async with pool_of(settings) as pool:
        return await Queries(pool).nets()


@app.command(epilog="Example: fl-jobs nets status net-1")
def status(
    net: Annotated[str | None, typer.Argument(help="One net; without it all.")] = None,
    env_file: EnvFile = None,
    as_json: AsJson = False,
) -> None:
    """Clients, places, runs that nobody here submitted."""
    nets = [n for n in run_async(_nets(settings_of(env_file))) if net in (None, n["name"])]
    if net is not None and not nets:
        raise Invalid(f"the registry has no net {net}; `fl-jobs nets list` names them")
    if as_json:
        print_json(nets)
        return
    console = out()
    for found in nets:
        taken = f"{found['occupied']} of {found['capacity']} places taken"
        console.print(styled((found["name"], "bold"), f" {state_of(found)}, {taken}"))
        for client in (found["status"] or {}).get("clients", []):
            mark = ("●", "green") if client["online"] else ("○", "red")
            told = f" {client['name']} ({client['fl_kit_slot']}) {client['status']}"
            console.print(styled("  ", mark, told))
        for slot in found["slots"]:
            doubt = " in doubt" if slot["in_doubt"] else ""
            console.print(
                styled(
                    f"  {slot['state']}{doubt}: job {slot['job_id']} attempt {slot['attempt']} "
                    f"run {slot['run_id'] or '?'} ({slot['job_state']})"
                )
            )
        for run in found["strays"]:
            console.print(styled("  ", ("stray", "yellow"), f" run {run}"))
        for status in found["unknown_statuses"]:
            console.print(styled("  ", ("unknown run status", "yellow"), f" {status or '(none)'}"))


NetName = Annotated[str | None, typer.Argument(help="One net.")]
All = Annotated[bool, typer.Option("--all", help="Every net: the whole service.")]


@app.command(epilog="Example: fl-jobs nets pause net-1")
def pause(
    net: NetName = None, every: All = False, env_file: EnvFile = None, as_json: AsJson = False
) -> None:
    """Start nothing more on this net, or anywhere; what runs continues."""
    name = run_async(_pause(settings_of(env_file), net, every, True))
    _told(as_json, {"net": net, "all": every, "paused": True}, f"{name} paused")


@app.command(epilog="Example: fl-jobs nets resume --all")
def resume(
    net: NetName = None, every: All = False, env_file: EnvFile = None, as_json: AsJson = False
) -> None:
    """Let jobs start on this net, or anywhere, again. A net paused by name stays so with --all."""
    name = run_async(_pause(settings_of(env_file), net, every, False))
    _told(as_json, {"net": net, "all": every, "paused": False}, f"{name} taking jobs again")


def _told(as_json: bool, document: dict[str, Any], text: str) -> None:
    if as_json:
        print_json(document)
    else:
        say(line(text))


async def _pause(settings: Settings, net: str | None, every: bool, paused: bool) -> str:
    if (net is None) != every:
        raise typer.BadParameter("name one net, or give --all")
    async with pool_of(settings) as pool:
        if net is None:
            await pause_hub(pool, paused)
            return "all nets are"
        await pause_net(pool, net, paused)
        return f"{net} is"


@app.command(epilog="Example: fl-jobs nets release 2f6b7a10-5c1e-4f43-9a55-0b7f6a1c0001")
def release(
    job: Annotated[str, typer.Argument(help="The job whose place is quarantined.")],
    attempt: Annotated[int | None, typer.Option("--attempt", help="Default: all.")] = None,
    env_file: EnvFile = None,
    as_json: AsJson = False,
) -> None:
    """Free a quarantined place, by your word that its run is over on the backend."""
    job_id = read_uuid(job, "the job")
    freed = run_async(_release(settings_of(env_file), job_id, attempt))
    if not freed:
        raise Invalid(f"job {job_id} has no quarantined place; `fl-jobs nets status` shows them")
    _told(as_json, {"job_id": str(job_id), "released": freed}, f"released {freed} place(s)")


async def _release(settings: Settings, job_id: Any, attempt: int | None) -> int:
    from service.app import make_store

    async with pool_of(settings) as pool:
        name = Topics(settings.kafka.topic_prefix).lifecycle
        async with EventOutbox(pool).session() as session:
            stream = await session.stream(name)
        if stream is None:
            raise Invalid("the service never ran on this database")
        store = make_store(settings, pool, stream.partitions)
        job = await store.get(job_id)
        numbers = [a.number for a in job.attempts] if job is not None else []
        wanted = [n for n in numbers if attempt in (None, n)]
        decisions = await store.apply([ReleaseReservation(job_id, number) for number in wanted])
        return sum(d.outcome is Outcome.APPLIED for d in decisions)
