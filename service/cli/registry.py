"""`fl-jobs registry`: trusts, nets and projects, the operator's word."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
import yaml

from service.cli.session import AsJson, EnvFile, pool_of, say_json, settings_of, work
from service.settings import Settings
from service.store import registry as stored

app = typer.Typer(no_args_is_help=True, help="Trusts, nets and projects.")


@app.command()
def apply(
    file: Annotated[Path, typer.Argument(help="YAML or JSON, the whole registry.")],
    env_file: EnvFile = None,
    as_json: AsJson = False,
) -> None:
    """Make this file the registry. The same file again changes nothing.

    Approvals that it takes back end queued jobs and stop running ones.
    """
    version, changed = work(stored.apply_registry_file(settings_of(env_file).database, file))
    if as_json:
        say_json({"version": version, "changed": changed})
    else:
        print(f"registry version {version}{'' if changed else ' (nothing changed)'}")


@app.command()
def show(env_file: EnvFile = None, as_json: AsJson = False) -> None:
    """Print what holds now; it can be applied again."""
    version, document = work(_show(settings_of(env_file)))
    if as_json:
        say_json(document)
    elif version == 0:
        print("no registry was applied yet: `fl-jobs registry apply FILE`")
    else:
        print(f"# version {version}\n{yaml.safe_dump(document, sort_keys=False)}", end="")


async def _show(settings: Settings) -> tuple[int, dict[str, object]]:
    async with pool_of(settings) as pool:
        return await stored.show(pool)
