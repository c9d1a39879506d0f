"""`fl-jobs schemas`: the JSON Schemas, examples and AsyncAPI document of the events.

Promises that what `export` writes is exactly what the running code speaks, also from an installed
package, and that `check` exits 1 when a folder differs from it. Neither needs settings or a network.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from service.contracts.package_data import data_path
from service.contracts.schemas import schema_files
from service.telemetry.terminal import print_json, say

app = typer.Typer(
    no_args_is_help=True,
    help="JSON Schemas, examples and the AsyncAPI document of every event.",
)

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]


@app.command(epilog="Example: fl-jobs schemas export ./fl-job-service-schemas")
def export(
    folder: Annotated[
        Path, typer.Argument(help="Where to write; made when missing.", metavar="DIR")
    ] = Path("schemas"),
    as_json: Json = False,
) -> None:
    """Write all schemas, examples and asyncapi.yaml below DIR, and remove stale ones there."""
    try:
        changed = schema_files.export(folder)
    except OSError as exc:
        say(f"{folder} can't be written: {exc.strerror}. Choose another DIR.", error=True)
        raise typer.Exit(1) from exc
    total = len(schema_files.generated())
    if as_json:
        paths = [str(path) for path in changed]
        print_json({"folder": str(folder), "files": total, "changed": paths}, indent=None)
    else:
        say(f"{total} files in {folder}, {len(changed)} of them changed.")


@app.command(epilog="Example: fl-jobs schemas check && echo up to date")
def check(
    folder: Annotated[
        Path | None,
        typer.Argument(help="The folder to compare (default: the shipped one).", metavar="DIR"),
    ] = None,
    as_json: Json = False,
) -> None:
    """Say what differs between DIR and this program's own schemas; exit 1 when something does."""
    root = data_path("schemas") if folder is None else folder
    drifts = schema_files.check(root)
    if as_json:
        print_json({"folder": str(root), "drifts": drifts}, indent=None)
    else:
        for drift in drifts:
            say(drift)
        if drifts:
            say(f"{len(drifts)} differences; `fl-jobs schemas export {root}` writes them anew.")
        else:
            say(f"{root} is what this program speaks.")
    if drifts:
        raise typer.Exit(1)
