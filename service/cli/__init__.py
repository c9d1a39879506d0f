"""The command line. One file per command group, each imported when it is called, so that help is quick.

Exit codes: 0 fine, 1 failed, 2 wrong usage. An error is one line that says what to do.
"""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any, Final

import click
import typer

from service.errors import ServiceError

#: command -> (module, attribute, what it does); a Typer app or a function.
COMMANDS: Final = {
    "demo": (
        "service.cli.demo",
        "demo",
        "Train a real model over three hospitals on this machine.",
    ),
    "local": ("service.cli.local", "app", "The embedded stack: up, status, down."),
    "migrate": ("service.cli.migrate", "migrate", "Bring the database to this version's schema."),
    "run": ("service.cli.run", "run", "Run the service, or some of its roles."),
    "registry": ("service.cli.registry", "app", "Trusts, nets and projects: apply, show."),
    "submit": ("service.cli.submit", "submit", "Ask for a training run."),
    "stop": ("service.cli.stop", "stop", "Stop a job, or all jobs of a model."),
    "jobs": ("service.cli.jobs", "app", "Jobs: list, show, watch."),
    "events": ("service.cli.events", "app", "The lifecycle topic: tail."),
    "nets": ("service.cli.nets", "app", "Nets: list, status, pause, resume, release."),
    "dead-letters": ("service.cli.dead_letters", "app", "Records that could not be used."),
    "schemas": ("service.cli.schemas", "app", "JSON Schemas and AsyncAPI: export, check."),
    "doctor": ("service.cli.doctor", "doctor", "Look at every part, and say how to mend it."),
    "fl-api": ("service.cli.fl_api", "app", "Be an FL net: an FL-API server."),
    "bench": ("service.cli.bench", "app", "Measure, side by side with rivals."),
}


class Lazy(click.Group):
    """A group whose commands are imported when they are named."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, attribute, _ = COMMANDS[cmd_name]
        found: Any = getattr(importlib.import_module(module), attribute)
        if not isinstance(found, typer.Typer):
            alone = typer.Typer(add_completion=False)
            alone.command(name=cmd_name)(found)
            found = alone
        command: Any = typer.main.get_command(found)
        command.name = cmd_name
        return command  # type: ignore[no-any-return]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, _, text) in COMMANDS.items()])


@click.group(cls=Lazy, context_settings={"help_option_names": ["-h", "--help"]})
def cli() -> None:
    """Federated-learning jobs, driven by events.

    \b
    fl-jobs demo                          train a model here, from nothing
    fl-jobs local up && fl-jobs run       a whole stack, and the service on it
    fl-jobs submit request.yaml --wait    ask for a training run and watch it
    fl-jobs doctor                        what is wrong, and how to mend it
    """


def main(arguments: list[str] | None = None) -> None:
    """The entry point of `fl-jobs`. Ends the process with its exit code."""
    try:
        code = cli.main(args=arguments, prog_name="fl-jobs", standalone_mode=False)
    except click.exceptions.Exit as exc:
        sys.exit(exc.exit_code)
    except click.Abort:
        sys.exit(130)
    except click.ClickException as exc:
        exc.show()
        sys.exit(exc.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)
    except ServiceError as exc:
        if os.environ.get("FL_LOG__LEVEL") == "debug":
            raise
        print(f"error: {exc.message}", file=sys.stderr)
        sys.exit(1)
    sys.exit(code if isinstance(code, int) else 0)
