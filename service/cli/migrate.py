"""`fl-jobs migrate`: the database's schema, and the registry where a file of it is set."""

from __future__ import annotations

from typing import Any

from service.cli.command import AsJson, EnvFile, run_async, settings_of
from service.cli.registry import apply_file, say_applied
from service.settings import Settings
from service.store import migrate as migrations
from service.telemetry.terminal import print_json, say


def migrate(env_file: EnvFile = None, as_json: AsJson = False) -> None:
    """Apply the migrations that the database lacks; safe to repeat, and from several places at once.

    Where FL_REGISTRY_FILE is set, that file is then applied as by `registry apply`; `run` does so at each
    start.

    \b
    fl-jobs migrate --env-file .local/env
    """
    done, registry = run_async(_migrate(settings_of(env_file)))
    if as_json:
        print_json({"applied": done} | ({} if registry is None else {"registry": registry}))
        return
    say("\n".join(f"applied {name}" for name in done) or "the schema is up to date")
    if registry is not None:
        say_applied(registry)


async def _migrate(settings: Settings) -> tuple[list[str], dict[str, Any] | None]:
    done = await migrations.migrate(settings.database)
    if settings.registry_file is None:
        return done, None
    return done, await apply_file(settings, settings.registry_file)
