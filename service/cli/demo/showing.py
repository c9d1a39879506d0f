"""The demo's last word: the picture, the topic's events as a file, then tables or JSON."""

from __future__ import annotations

import json

import typer
from rich.console import Console

from service.cli.demo import picture, telling
from service.cli.demo.journey import NAMES, Outcome
from service.cli.demo.rivals import FEDERATED, POOLED
from service.cli.demo.story import TOGETHER


def show(outcome: Outcome, *, as_json: bool, kept: bool) -> None:
    """Write `learning-curve.png` and `lifecycle.jsonl` into the demo's folder, and print the rest."""
    lines = (
        json.dumps({"sequence": t.sequence, "type": t.word, "time": t.time, "data": t.data})
        for t in outcome.story.events
    )
    (outcome.dir / "lifecycle.jsonl").write_text("\n".join(lines) + "\n")
    drawn = None
    if outcome.story.rounds:
        drawn = outcome.dir / "learning-curve.png"
        said = {"Federated": FEDERATED, "All data in one place": POOLED}
        levels = {
            name: outcome.scores[key]["accuracy"]
            for name, key in said.items()
            if key in outcome.scores
        }
        picture.draw(drawn, outcome.story.rounds, {TOGETHER: "Together", **NAMES}, levels)
    if as_json:
        typer.echo(json.dumps(telling.document(outcome, drawn), indent=2))
        return
    telling.tell(outcome, drawn, Console())
    if kept:
        typer.echo(f"Still running:   fl-jobs local status --dir {outcome.dir}")
        typer.echo(f"To stop it:      fl-jobs local down --dir {outcome.dir}")
