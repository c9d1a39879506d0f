"""Watching one job to its end: state, round by round, site by site. Reads the database, twice a second."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import Any
from uuid import UUID

from rich.console import Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from service.cli.command import pool_of
from service.domain.enums import TERMINAL
from service.errors import Invalid
from service.settings import Settings
from service.store.queries import Queries
from service.telemetry.terminal import Terminal, err, line, say, styled

COLOURS = {"completed": "green", "failed": "red", "rejected": "red", "stopped": "yellow"}


async def follow(
    settings: Settings, job_id: UUID, *, quiet: bool = False, appears_within: float = 30.0
) -> dict[str, Any]:
    """The job's whole state once it has ended; shown meanwhile. Raises Invalid when it never appears."""
    console = err() if quiet else Terminal()
    deadline = time.monotonic() + appears_within
    live = Live(console=console, refresh_per_second=8, transient=False)
    shown = not quiet and console.is_terminal
    shown_line = ""
    async with pool_of(settings) as pool:
        queries = Queries(pool)
        with live if shown else contextlib.nullcontext():
            while True:
                job = await queries.job(job_id)
                if job is None and time.monotonic() > deadline:
                    raise Invalid(
                        f"no job {job_id} appeared in {appears_within:g} s: is the service running "
                        "(`fl-jobs run`), and does `fl-jobs dead-letters list` show the request?"
                    )
                if job is not None:
                    if shown:
                        live.update(panel(job))
                    elif not quiet and (now := one_line(job)) != shown_line:
                        shown_line = now
                        say(shown_line)
                    if job["state"] in TERMINAL:
                        return job
                await asyncio.sleep(0.3)


def one_line(job: dict[str, Any]) -> str:
    """A job in a line, for places that are no terminal."""
    parts = [job["state"]]
    progress = job["progress"]
    if progress.get("total"):
        parts.append(f"round {progress['round']}/{progress['total']}")
    if job["state"] == "queued":
        parts.append(f"position {job.get('position')}, {job['waiting_for'] or 'its turn comes'}")
    numbers = _overall(progress.get("metrics", []))
    if numbers:
        parts.append(numbers)
    if job.get("reason"):
        parts.append(f"{job['reason']['code']}: {job['reason']['message']}")
    if job.get("results"):
        parts.append(f"results {job['results']['uri']}")
    return line("  ".join(parts))


def _overall(metrics: list[dict[str, Any]]) -> str:
    return "  ".join(
        f"{m['label']} {m['result']:.4f}"
        for m in metrics
        if m["fl_client_name"] is None and m["result"] is not None
    )


def panel(job: dict[str, Any]) -> RenderableType:
    """A job for a terminal: head, bar, sites."""
    colour = COLOURS.get(job["state"], "cyan")
    head = Text.assemble(
        (job["state"], f"bold {colour}"),
        f"  job {job['job_id']}  attempt {job['attempt']}",
        line(f"  on {job['net']}") if job.get("net") else "",
    )
    rows: list[RenderableType] = [head]
    progress = job["progress"]
    if job["state"] == "queued":
        waits = job["waiting_for"] or "its turn comes"
        rows.append(Text(f"position {job.get('position')}  {waits}"))
    if progress.get("total"):
        bar = ProgressBar(total=progress["total"], completed=progress["aggregated"], width=40)
        grid = Table.grid(padding=(0, 2))
        grid.add_row(bar, f"round {progress['round']} of {progress['total']}")
        rows.append(grid)
        rows.append(sites_table(progress))
    if job.get("reason"):
        why = f"{job['reason']['code']}: {job['reason']['message']}"
        rows.append(styled((why, "yellow")))
    if job.get("results"):
        rows.append(styled(f"results {job['results']['uri']}"))
    return Group(*rows)


def sites_table(progress: dict[str, Any]) -> Table:
    """The newest number of each label by site, the aggregate last."""
    metrics = progress.get("metrics", [])
    labels = sorted({m["label"] for m in metrics})
    table = Table(box=None, pad_edge=False)
    table.add_column("site")
    table.add_column("state")
    for label in labels:
        table.add_column(line(label), justify="right")
    states = {s["slot"]: s["state"] for s in progress.get("sites", [])}
    names = sorted({m["fl_client_name"] for m in metrics if m["fl_client_name"]} | set(states))
    for name in [*names, None]:
        values = {m["label"]: m["result"] for m in metrics if m["fl_client_name"] == name}
        if name is None and not values:
            continue
        cells = ["" if values.get(lb) is None else f"{values[lb]:.4f}" for lb in labels]
        table.add_row(line(name or "all"), states.get(name, "") if name else "", *cells)
    return table
