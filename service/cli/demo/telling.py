"""What the demo shows at its end: tables for people, one JSON document for machines."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from service.cli.demo.hospitals import TEST
from service.cli.demo.journey import NAMES, Outcome
from service.cli.demo.rivals import FEDERATED, POOLED
from service.cli.demo.story import METRICS, OF_A_ROUND, TOGETHER, Scores, Told
from service.domain.enums import Lifecycle

_MAX_ROWS: Final = 25
_MIB: Final = 2**20


def tell(outcome: Outcome, console: Console) -> None:
    """Print it all."""
    console.print(_patients(outcome))
    if outcome.story.rounds:
        console.print(_rounds(outcome))
    if outcome.scores:
        console.print(_comparison(outcome))
    console.print(_lifecycle(outcome))
    for line in _places(outcome):
        console.print(line, highlight=False, soft_wrap=True)


def document(outcome: Outcome) -> dict[str, Any]:
    """The same for machines; `seconds` by part of the way, `memory` in bytes (PSS) by process."""
    last = outcome.story.last
    return {
        "job_id": str(outcome.job_id),
        "state": last.word.value,
        "reason": last.data.get("reason"),
        "patients": {
            place: {"total": who.total, "malignant": who.malignant}
            for place, who in outcome.patients.items()
        },
        "rounds": [
            {"round": number, "scores": {place: dict(s) for place, s in sorted(places.items())}}
            for number, places in sorted(outcome.story.rounds.items())
        ],
        "test": outcome.scores,
        "lifecycle": [
            {"sequence": told.sequence, "type": f"fl.job.{told.word.value}.v1", "time": told.time}
            for told in outcome.story.events
        ],
        "attempts": last.data["attempt"],
        "backend_runs": _runs(outcome),
        "results": last.data.get("results"),
        "results_file": str(outcome.results) if outcome.results else None,
        "picture": str(outcome.picture) if outcome.picture else None,
        "service_restarts": outcome.restarts,
        "memory": outcome.memory,
        "seconds": outcome.seconds,
    }


def _runs(outcome: Outcome) -> list[str]:
    found = [told.data.get("fl_backend_job_id") for told in outcome.story.events]
    return sorted({str(run) for run in found if run})


def _patients(outcome: Outcome) -> Table:
    table = Table(title="\nWho has which patients", title_justify="left", box=None)
    for heading in ("", "patients", "malignant"):
        table.add_column(heading, justify="left" if not heading else "right")
    for place, who in outcome.patients.items():
        name = NAMES.get(place, "Test set, held apart" if place == TEST else place)
        table.add_row(name, str(who.total), f"{who.malignant / who.total:.0%}")
    return table


def _rounds(outcome: Outcome) -> Table:
    title = "\nRound by round, on the hospitals' own held-back patients: " + ", ".join(METRICS)
    table = Table(title=title, title_justify="left", box=None)
    table.add_column("", justify="right")
    places = {TOGETHER: "Together", **NAMES}
    for name in places.values():
        table.add_column(name, justify="right", no_wrap=True)
    rounds = outcome.story.rounds
    for number in _some(sorted(rounds)):
        cells = (_cell(rounds[number].get(place, {})) for place in places)
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


def _comparison(outcome: Outcome) -> Table:
    size = outcome.patients[TEST].total
    title = f"\nThe same trainer, tried on {size} patients that it never saw"
    table = Table(title=title, title_justify="left", box=None)
    for heading in ("", "right of all", *METRICS):
        table.add_column(heading, justify="left" if not heading else "right")
    for name, scores in outcome.scores.items():
        said = {FEDERATED: "Federated", POOLED: "All data in one place"}.get(name)
        right = f"{round(scores['accuracy'] * size)}/{size}"
        cells = (f"{scores[metric]:.3f}" for metric in METRICS)
        style = "bold green" if name == FEDERATED else ""
        table.add_row(said or f"{NAMES.get(name, name)} alone", right, *cells, style=style)
    return table


def _lifecycle(outcome: Outcome) -> Table:
    title = "\nThe lifecycle topic, read committed"
    table = Table(title=title, title_justify="left", box=None)
    for heading in ("sequence", "time", "event", ""):
        table.add_column(heading, justify="right" if heading == "sequence" else "left")
    for group in _grouped(outcome.story.events):
        first, last = group[0], group[-1]
        if first is last:
            cells = (str(first.sequence), first.time[11:23], first.word.value, _about(first))
        else:
            numbers = f"{first.sequence}-{last.sequence}"
            cells = (numbers, first.time[11:23], f"rounds {first.round}-{last.round}", "")
        table.add_row(*cells)
    return table


def _grouped(events: list[Told]) -> Iterator[list[Told]]:
    """Single events, but the rounds between the first and the last as one group."""
    rounds = [told.round for told in events if told.word in OF_A_ROUND and told.round]
    shown = {min(rounds, default=0), max(rounds, default=0)}
    group: list[Told] = []
    for told in events:
        if told.word in OF_A_ROUND and told.round not in shown:
            group.append(told)
            continue
        if group:
            yield group
        group = []
        yield [told]
    if group:
        yield group


def _about(told: Told) -> str:
    data = told.data
    where = NAMES.get(data.get("slot") or "", "")
    match told.word:
        case Lifecycle.STARTED:
            return f"attempt {data['attempt']} on {data['net']}"
        case Lifecycle.SUBMITTED:
            return f"run {data['fl_backend_job_id']}"
        case Lifecycle.METRICS_RECORDED:
            metrics = data["metrics"]
            slot = str(metrics[0]["fl_client_name"]) if metrics else ""
            return NAMES.get(slot, "together") + ", " + ", ".join(m["label"] for m in metrics)
        case word if word in OF_A_ROUND:
            return where or f"round {told.round}"
    reason = data.get("reason")
    return str(reason["message"]) if reason else ""


def _places(outcome: Outcome) -> Iterator[str]:
    last = outcome.story.last
    yield ""
    if outcome.completed:
        results = last.data["results"]
        yield f"Result in S3:    {results['uri']}"
        yield f"                 {results['bytes']} bytes, SHA-256 {results['sha256']} (verified)"
        yield f"A copy of it:    {outcome.results}"
    else:
        reason = last.data.get("reason") or {}
        yield f"[red]The job is {last.word.value}[/]: {reason.get('message', 'no reason given')}"
    if outcome.picture is not None:
        yield f"Learning curve:  {outcome.picture}"
    yield f"Logs:            {outcome.dir / 'logs'}"
    if outcome.memory:
        parts = ", ".join(f"{name} {size / _MIB:.0f}" for name, size in outcome.memory.items())
        total = sum(outcome.memory.values()) / _MIB
        yield f"Memory (PSS):    {total:.0f} MiB while it trained: {parts}"
    laps = ", ".join(f"{name} {seconds:.1f}" for name, seconds in outcome.seconds.items())
    yield f"Time:            {sum(outcome.seconds.values()):.1f} s: {laps}"
