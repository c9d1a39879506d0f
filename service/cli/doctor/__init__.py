"""`fl-jobs doctor`: every component checked as the service uses it."""

from __future__ import annotations

import typer

from service.cli.command import AsJson, EnvFile, run_async, settings_of
from service.settings import Settings
from service.telemetry.terminal import line, out, print_json, styled

_MARKS = {"ok": ("✓", "green"), "warning": ("!", "yellow"), "failed": ("✗", "red")}


def doctor(env_file: EnvFile = None, as_json: AsJson = False) -> None:
    """Check broker, topics, database, object store, manifests, nets and work under way.

    What is wrong comes with its fix. Exit code 1 when something failed.

    \b
    fl-jobs doctor --json
    """
    settings = settings_of(env_file)
    states = run_async(_run(settings, as_json))
    raise typer.Exit(1 if "failed" in states else 0)


async def _run(settings: Settings, as_json: bool) -> set[str]:
    from dataclasses import asdict

    from service.cli.doctor.checks import examine

    console = out()
    found = []
    async for finding in examine(settings):
        found.append(finding)
        if not as_json:
            mark = _MARKS[finding.state]
            console.print(styled(mark, " ", (finding.part, "bold"), f": {finding.message}"))
            if finding.fix:
                console.print(f"    → {line(finding.fix)}")
    if as_json:
        print_json([asdict(finding) for finding in found])
    return {finding.state for finding in found}
