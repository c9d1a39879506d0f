"""`fl-jobs registry`: trusts, nets and projects, the operator's word."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from service.cli.command import AsJson, EnvFile, pool_of, run_async, settings_of
from service.settings import Settings
from service.store import registry as stored
from service.store.queries import Queries
from service.telemetry.terminal import line, print_json, say

app = typer.Typer(no_args_is_help=True, help="Trusts, nets and projects.")


@app.command(epilog="Example: fl-jobs registry apply registry.yaml")
def apply(
    file: Annotated[Path, typer.Argument(help="YAML or JSON, the whole registry.")],
    env_file: EnvFile = None,
    as_json: AsJson = False,
) -> None:
    """Make this file the registry. The same file again changes nothing.

    Approvals that it takes back end queued jobs and stop running ones. A net that it leaves out while
    places are held there is named: it drains, and its runs are followed to their end.
    """
    settings = settings_of(env_file)
    applied = run_async(apply_file(settings, file))
    named = settings.registry_file
    if named is not None and named.resolve() != file.resolve():
        say(
            f"warning: FL_REGISTRY_FILE names {named}: the next `fl-jobs run` or `migrate` applies that "
            "again; write the change there, or take the setting out",
            error=True,
        )
    if as_json:
        print_json(applied)
    else:
        say_applied(applied)


def say_applied(applied: dict[str, Any]) -> None:
    """What `apply_file` did, for people."""
    nothing = "" if applied["changed"] else " (nothing changed)"
    say(f"registry version {applied['version']}{nothing}")
    for slot in applied["held_on_removed_nets"]:
        say(
            f"warning: net {line(slot['net'])} is out of the registry with a place {slot['state']} for job "
            f"{slot['job_id']}, attempt {slot['attempt']}: it drains; leave its adapter up until then"
        )


async def apply_file(settings: Settings, file: Path) -> dict[str, Any]:
    """Version, whether anything changed, and the places on nets that are out of the registry.

    Raises errors.Invalid: the file can't be read, or is no registry.
    """
    version, changed = await stored.apply_registry_file(settings.database, file)
    async with pool_of(settings) as pool:
        slots = await Queries(pool).stuck_reservations(0.0)
    kept = ("net", "job_id", "attempt", "state", "run_id", "job_state")
    left = [{key: slot[key] for key in kept} for slot in slots if not slot["registered"]]
    return {"version": version, "changed": changed, "held_on_removed_nets": left}


@app.command(epilog="Example: fl-jobs registry show > registry.yaml")
def show(env_file: EnvFile = None, as_json: AsJson = False) -> None:
    """Print what holds now; it can be applied again."""
    version, document = run_async(_show(settings_of(env_file)))
    if as_json:
        print_json(document)
    elif version == 0:
        say("no registry was applied yet: `fl-jobs registry apply FILE`")
    else:
        say(f"# version {version}\n{yaml.safe_dump(document, sort_keys=False)}", end="")


async def _show(settings: Settings) -> tuple[int, dict[str, object]]:
    async with pool_of(settings) as pool:
        return await stored.show(pool)
