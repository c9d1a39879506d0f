"""What the demo shows at its end: tables for people, one JSON document for machines.

Promises the topic's events as a file, `lifecycle.jsonl`, whichever form is printed.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from service.demo.baselines import FEDERATED, POOLED
from service.demo.dataset import TEST
from service.demo.lifecycle import METRICS, OF_A_ROUND, TOGETHER, LoggedEvent, Scores
from service.demo.runner import NAMES, DemoResult
from service.domain.enums import Lifecycle
from service.telemetry.terminal import line, out, print_json, say, styled

_MAX_ROWS: Final = 25
_MIB: Final = 2**20


def show_result(result: DemoResult, *, as_json: bool) -> None:
    """Write `lifecycle.jsonl` into the demo's folder, and print the rest."""
    lines = (
        json.dumps({"sequence": t.sequence, "type": t.event_name, "time": t.time, "data": t.data})
        for t in result.lifecycle.events
    )
    (result.dir / "lifecycle.jsonl").write_text("\n".join(lines) + "\n")
    if as_json:
        print_json(document(result))
        return
    print_report(result, out())
    if result.left_running:
        say(f"Still running:   fl-jobs local status --dir {result.dir}")
        say(f"To stop it:      fl-jobs local down --dir {result.dir}")


def print_report(result: DemoResult, console: Console) -> None:
    """Print it all."""
    for table in tables(result).values():
        console.print(table)
    for site in _locations(result):
        console.print(site, soft_wrap=True)


def tables(result: DemoResult) -> dict[str, Table]:
    """What it was trained on, how it went and what came of it, in this order; what there is none of is left
    out."""
    found = {"patients": _patients(result)}
    if result.lifecycle.rounds:
        found["rounds"] = _rounds(result)
    if result.scores:
        found["comparison"] = _comparison(result)
    return found | {"lifecycle": _lifecycle(result)}


def document(result: DemoResult) -> dict[str, Any]:
    """The same for machines; `seconds` by phase, `memory` in bytes (PSS) by process."""
    last = result.lifecycle.last
    return {
        "job_id": str(result.job_id),
        "state": last.event_name.value,
        "reason": last.data.get("reason"),
        "patients": {
            site: {"total": who.total, "malignant": who.malignant}
            for site, who in result.patients.items()
        },
        "rounds": [
            {"round": number, "scores": {site: dict(s) for site, s in sorted(sites.items())}}
            for number, sites in sorted(result.lifecycle.rounds.items())
        ],
        "test": result.scores,
        "lifecycle": [
            {
                "sequence": event.sequence,
                "type": f"fl.job.{event.event_name.value}.v1",
                "time": event.time,
            }
            for event in result.lifecycle.events
        ],
        "attempts": last.data["attempt"],
        "backend_runs": _runs(result),
        "results": last.data.get("results"),
        "results_file": str(result.results) if result.results else None,
        "picture": str(result.picture) if result.picture else None,
        "service_restarts": result.restarts,
        "memory": result.memory,
        "seconds": result.seconds,
    }


def _runs(result: DemoResult) -> list[str]:
    found = [event.data.get("fl_backend_job_id") for event in result.lifecycle.events]
    return sorted({str(run) for run in found if run})


def _patients(result: DemoResult) -> Table:
    table = Table(title="\nWho has which patients", title_justify="left", box=None)
    for heading in ("", "patients", "malignant"):
        table.add_column(heading, justify="left" if not heading else "right")
    for site, who in result.patients.items():
        name = NAMES.get(site, "Test set, held apart" if site == TEST else site)
        table.add_row(name, str(who.total), f"{who.malignant / who.total:.0%}")
    return table


def _rounds(result: DemoResult) -> Table:
    title = "\nRound by round, on the hospitals' own held-back patients: " + ", ".join(METRICS)
    table = Table(title=title, title_justify="left", box=None)
    table.add_column("", justify="right")
    sites = {TOGETHER: "Together", **NAMES}
    for name in sites.values():
        table.add_column(name, justify="right", no_wrap=True)
    rounds = result.lifecycle.rounds
    for number in _some(sorted(rounds)):
        cells = (_cell(rounds[number].get(site, {})) for site in sites)
        table.add_row(str(number), *cells)
    if len(rounds) > _MAX_ROWS:
        table.caption = f"{_MAX_ROWS} of {len(rounds)} rounds; --json has all"
    return table


def _some(numbers: list[int]) -> list[int]:
    """At most `_MAX_ROWS` of them, evenly spaced, the first and the last among them."""
    if len(numbers) <= _MAX_ROWS:
        return numbers
    step = (len(numbers) - 1) / (_MAX_ROWS - 1)
    return [numbers[round(i * step)] for i in range(_MAX_ROWS)]


def _cell(scores: Scores) -> str:
    values = (scores.get(metric) for metric in METRICS)
    return " ".join("    -" if v is None else f"{v:.3f}" for v in values)


def _comparison(result: DemoResult) -> Table:
    size = result.patients[TEST].total
    title = f"\nThe same trainer, tried on {size} patients that it never saw"
    table = Table(title=title, title_justify="left", box=None)
    for heading in ("", "right of all", *METRICS):
        table.add_column(heading, justify="left" if not heading else "right")
    for name, scores in result.scores.items():
        said = {FEDERATED: "Federated", POOLED: "All data in one place"}.get(name)
        right = f"{round(scores['accuracy'] * size)}/{size}"
        cells = (f"{scores[metric]:.3f}" for metric in METRICS)
        style = "bold green" if name == FEDERATED else ""
        table.add_row(said or f"{NAMES.get(name, name)} alone", right, *cells, style=style)
    return table


def _lifecycle(result: DemoResult) -> Table:
    title = "\nThe lifecycle topic, read committed"
    table = Table(title=title, title_justify="left", box=None)
    for heading in ("sequence", "time", "event", ""):
        table.add_column(heading, justify="right" if heading == "sequence" else "left")
    for group in _grouped(result.lifecycle.events):
        first, last = group[0], group[-1]
        if first is last:
            cells = (
                str(first.sequence),
                first.time[11:23],
                first.event_name.value,
                line(_about(first)),
            )
        else:
            numbers = f"{first.sequence}-{last.sequence}"
            cells = (numbers, first.time[11:23], f"rounds {first.round}-{last.round}", "")
        table.add_row(*cells)
    return table


def _grouped(events: list[LoggedEvent]) -> Iterator[list[LoggedEvent]]:
    """Single events, but the rounds between the first and the last as one group."""
    rounds = [event.round for event in events if event.event_name in OF_A_ROUND and event.round]
    shown = {min(rounds, default=0), max(rounds, default=0)}
    group: list[LoggedEvent] = []
    for event in events:
        if event.event_name in OF_A_ROUND and event.round not in shown:
            group.append(event)
            continue
        if group:
            yield group
        group = []
        yield [event]
    if group:
        yield group


def _about(event: LoggedEvent) -> str:
    data = event.data
    where = NAMES.get(data.get("slot") or "", "")
    match event.event_name:
        case Lifecycle.STARTED:
            return f"attempt {data['attempt']} on {data['net']}"
        case Lifecycle.SUBMITTED:
            return f"run {data['fl_backend_job_id']}"
        case Lifecycle.METRICS_RECORDED:
            metrics = data["metrics"]
            slot = str(metrics[0]["fl_client_name"]) if metrics else ""
            return NAMES.get(slot, "together") + ", " + ", ".join(m["label"] for m in metrics)
        case event_name if event_name in OF_A_ROUND:
            return where or f"round {event.round}"
    reason = data.get("reason")
    return str(reason["message"]) if reason else ""


def _locations(result: DemoResult) -> Iterator[str | Text]:
    last = result.lifecycle.last
    yield ""
    if result.completed:
        results = last.data["results"]
        yield f"Result in S3:    {results['uri']}"
        yield f"                 {results['bytes']} bytes, SHA-256 {results['sha256']} (verified)"
        yield f"A copy of it:    {result.results}"
    else:
        reason = last.data.get("reason") or {}
        why = reason.get("message", "no reason given")
        yield styled((f"The job is {last.event_name.value}", "red"), f": {why}")
    if result.picture is not None:
        yield f"Learning curve:  {result.picture}"
    yield f"Logs:            {result.dir / 'logs'}"
    if result.memory:
        parts = ", ".join(f"{name} {size / _MIB:.0f}" for name, size in result.memory.items())
        total = sum(result.memory.values()) / _MIB
        yield f"Memory (PSS):    {total:.0f} MiB while it trained: {parts}"
    phases = ", ".join(f"{name} {seconds:.1f}" for name, seconds in result.seconds.items())
    yield f"Time:            {sum(result.seconds.values()):.1f} s: {phases}"
