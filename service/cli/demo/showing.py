"""The demo's last word: the topic's events as a file, then tables or JSON."""

from __future__ import annotations

import json

import typer
from rich.console import Console

from service.cli.demo import telling
from service.cli.demo.journey import Outcome


def show(outcome: Outcome, *, as_json: bool) -> None:
    """Write `lifecycle.jsonl` into the demo's folder, and print the rest."""
    lines = (
        json.dumps({"sequence": t.sequence, "type": t.word, "time": t.time, "data": t.data})
        for t in outcome.story.events
    )
    (outcome.dir / "lifecycle.jsonl").write_text("\n".join(lines) + "\n")
    if as_json:
        typer.echo(json.dumps(telling.document(outcome), indent=2))
        return
    telling.tell(outcome, Console())
    if outcome.left_running:
        typer.echo(f"Still running:   fl-jobs local status --dir {outcome.dir}")
        typer.echo(f"To stop it:      fl-jobs local down --dir {outcome.dir}")
