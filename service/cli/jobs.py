"""`fl-jobs jobs`: what there is, one job's whole story, and a live view."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Annotated, Any
from uuid import UUID

import typer
from rich.console import Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from service.cli.collecting import collect_again
from service.cli.command import (
    AsJson,
    EnvFile,
    pool_of,
    read_uuid,
    run_async,
    settings_of,
)
from service.cli.follow import COLOURS, follow, panel, sites_table
from service.domain.advice import job_advice
from service.domain.enums import JobState
from service.errors import Invalid
from service.settings import Settings
from service.store.queries import Queries
from service.telemetry.terminal import json_text, line, lines, out, print_json, say, styled

app = typer.Typer(no_args_is_help=True, help="Jobs: list, show, watch, collect.")


@app.command("list", epilog="Example: fl-jobs jobs list --state queued --project demo")
def list_jobs(
    state: Annotated[
        JobState | None, typer.Option("--state", help="Only jobs in this state.")
    ] = None,
    model: Annotated[str | None, typer.Option("--model", help="Only jobs of this model.")] = None,
    project: Annotated[
        str | None, typer.Option("--project", help="Only jobs of this project.")
    ] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, max=10_000, help="So many at most.")] = 30,
    env_file: EnvFile = None,
    as_json: AsJson = False,
) -> None:
    """The newest jobs first."""
    model_id = None if model is None else read_uuid(model, "--model")
    rows = run_async(_list(settings_of(env_file), state, model_id, project, limit))
    if as_json:
        print_json(rows)
        return
    out().print(jobs_table(rows) if rows else "no jobs")


async def _list(
    settings: Settings, state: str | None, model: UUID | None, project: str | None, limit: int
) -> list[dict[str, Any]]:
    async with pool_of(settings) as pool:
        return await Queries(pool).jobs(
            state=state, model_id=model, project_id=project, limit=limit
        )


def jobs_table(rows: list[dict[str, Any]]) -> Table:
    """Jobs as lines of a table."""
    table = Table(box=None, pad_edge=False)
    # The id whole on every screen: it is what the other commands are given.
    table.add_column("job", no_wrap=True, min_width=36)
    for name in ("state", "round", "net", "try", "prio", "since", "why"):
        table.add_column(name, no_wrap=name == "state")
    for row in rows:
        rounds = f"{row['round']}/{row['total_rounds']}" if row["total_rounds"] else ""
        why = row["reason"]["code"] if row["reason"] else (row["waiting"] or "")
        table.add_row(
            row["job_id"],
            styled((row["state"], COLOURS.get(row["state"], "cyan"))),
            rounds,
            line(row["net"] or ""),
            str(row["attempt"]),
            str(row["priority"]),
            row["changed_at"].strftime("%m-%d %H:%M:%S"),
            line(why),
        )
    return table


@app.command(epilog="Example: fl-jobs jobs show 2f6b7a10-5c1e-4f43-9a55-0b7f6a1c0001")
def show(
    job: Annotated[str, typer.Argument(help="The job's id.")],
    env_file: EnvFile = None,
    as_json: AsJson = False,
) -> None:
    """One job: its state, its timeline with reasons, and while queued its position and what it waits for."""
    found = run_async(_show(settings_of(env_file), read_uuid(job, "the job")))
    if as_json:
        print_json(found)
        return
    state = found["state"]
    console = out()
    console.print(panel(state))
    if found["waits"] is not None:
        console.print(f"waits: {line(found['waits']['message'])}")
    if found["advice"] is not None:
        console.print(f"What to do: {found['advice']['action']}")
    table = Table(box=None, pad_edge=False)
    for name in ("#", "time", "event", ""):
        table.add_column(name)
    for event in found["events"]:
        word = event["type"].removeprefix("fl.job.").removesuffix(".v1")
        table.add_row(
            str(event["sequence"]),
            event["at"].strftime("%H:%M:%S.%f")[:-3],
            word,
            lines(detail(event)),
        )
    console.print(table)


async def _show(settings: Settings, job_id: UUID) -> dict[str, Any]:
    from service.app import fact_reader

    async with pool_of(settings) as pool:
        queries = Queries(pool)
        state = await queries.job(job_id)
        if state is None:
            raise Invalid(
                f"no job {job_id}: `fl-jobs jobs list` shows those there are, and "
                "`fl-jobs dead-letters list` records that could not be used"
            )
        waits = await queries.why_waiting(job_id, fact_reader(settings))
        events = await queries.events(job_id)
    return {"state": state, "waits": waits, "advice": advice_on(state, waits), "events": events}


def advice_on(state: dict[str, Any], waits: dict[str, Any] | None) -> dict[str, str] | None:
    """What the job's code means and what to do about it; None where nothing is to be done."""
    reason = state.get("reason") or {}
    code = state["waiting_for"] if waits is None else waits["code"]
    found = job_advice(state["state"], reason.get("code"), code)
    return None if found is None else {"meaning": found.meaning, "action": found.action}


@app.command(epilog="Example: fl-jobs jobs collect 2f6b7a10-5c1e-4f43-9a55-0b7f6a1c0001")
def collect(
    job: Annotated[str, typer.Argument(help="A job whose results could not be had.")],
    env_file: EnvFile = None,
    as_json: AsJson = False,
) -> None:
    """Fetch a job's results again at once, without training again.

    While the job is collecting, the service does it. After it has failed with results_upload_failed this
    command does it itself: the job keeps its end, and its state says where the results lie.
    """
    done = run_async(collect_again(settings_of(env_file), read_uuid(job, "the job")))
    if as_json:
        print_json(done)
    elif done["results"] is None:
        say(f"job {done['job_id']}: the service fetches the results now")
    else:
        say(f"job {done['job_id']}: the results lie at {done['results']['uri']}")


def detail(event: dict[str, Any]) -> str:
    """What a line of the timeline tells beside the event's word."""
    data = event["data"]
    word = event["type"].split(".")[2]
    if data.get("reason"):
        errors = "".join(
            f"\n  {line('.'.join(map(str, e['loc'])))}: {line(e['msg'])}"
            for e in data["reason"]["errors"]
        )
        return f"{data['reason']['code']}: {line(data['reason']['message'])}{errors}"
    if word == "queued":
        return f"priority {data['priority']}  {data['waiting_for'] or ''}"
    if word == "started":
        return line(f"on {data['net']}: {', '.join(p['slot'] for p in data['participants'])}")
    if word == "metrics_recorded":
        return line(
            "  ".join(
                f"{m['fl_client_name'] or 'all'} {m['label']} {m['result']}"
                for m in data["metrics"]
            )
        )[:160]
    if "global_round" in data:
        return line(f"round {data['global_round']}/{data['total_rounds']} {data['slot'] or ''}")
    if word == "log_recorded":
        return line(data["log"])[:300]
    if word == "completed" and (data["results"] or data.get("results_note")):
        uri = data["results"]["uri"] if data["results"] else "no results"
        return line(f"{uri}  {data.get('results_note') or ''}".rstrip())
    return line(data.get("fl_backend_job_id") or "")


@app.command(epilog="Example: fl-jobs jobs watch --json | tee jobs.jsonl")
def watch(
    job: Annotated[str | None, typer.Argument(help="One job; without it all unfinished.")] = None,
    env_file: EnvFile = None,
    as_json: AsJson = False,
) -> None:
    """Live: state, rounds, every site's metrics. Ends with the job, or with Ctrl-C.

    Into a pipe or file it prints a line for every change; with --json, and without a job, one JSON object.
    """
    settings = settings_of(env_file)
    if job is not None:
        state = run_async(follow(settings, read_uuid(job, "the job"), quiet=as_json))
        if as_json:
            print_json(state)
        return
    run_async(_watch_all(settings, as_json))


async def _watch_all(settings: Settings, as_json: bool) -> None:
    console, since = out(), datetime.now(UTC)
    async with pool_of(settings) as pool:
        queries = Queries(pool)
        if as_json or not console.is_terminal:
            seen: dict[str, str] = {}
            while True:
                for row in reversed(await queries.jobs_live(since, 1_000)):
                    told = json_text(row) if as_json else summary_line(row)
                    if seen.get(row["job_id"]) != told:
                        seen[row["job_id"]] = told
                        say(told)
                await asyncio.sleep(0.5)
        with Live(console=console, refresh_per_second=4) as live:
            while True:
                live.update(await _overview(queries, since))
                await asyncio.sleep(0.5)


def summary_line(row: dict[str, Any]) -> str:
    """A job of the list in a line."""
    parts = [row["job_id"], row["state"]]
    if row["net"]:
        parts.append(f"on {row['net']}, attempt {row['attempt']}")
    if row["total_rounds"]:
        parts.append(f"round {row['round']}/{row['total_rounds']}")
    if row["reason"]:
        parts.append(f"{row['reason']['code']}: {row['reason']['message']}")
    elif row["waiting"]:
        parts.append(row["waiting"])
    return line("  ".join(parts))


async def _overview(queries: Queries, since: datetime) -> RenderableType:
    rows = await queries.jobs_live(since, 25)
    parts: list[RenderableType] = [jobs_table(rows) if rows else "no unfinished jobs"]
    for row in rows:
        if row["state"] == "running":
            job = await queries.job(UUID(row["job_id"]))
            if job is not None:
                parts += [Text(f"\n{row['job_id']}", style="bold"), sites_table(job["progress"])]
    return Group(*parts)
