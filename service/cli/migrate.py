"""`fl-jobs migrate`: the database's schema."""

from __future__ import annotations

from service.cli.session import AsJson, EnvFile, say_json, settings_of, work
from service.store import migrate as migrations


def migrate(env_file: EnvFile = None, as_json: AsJson = False) -> None:
    """Apply the migrations that the database lacks; safe to repeat, and from several places at once."""
    done = work(migrations.migrate(settings_of(env_file).database))
    if as_json:
        say_json({"applied": done})
    else:
        print("\n".join(f"applied {name}" for name in done) or "the schema is up to date")
