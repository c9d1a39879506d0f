"""The command line. One file per command group, each imported when it is called, so that help is quick.

Exit codes: 0 fine, 1 failed, 2 wrong usage. An error is one line that says what to do.
"""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path
from typing import Any, Final

import typer

from service.contracts.wire.problems import ContractViolation
from service.errors import Invalid, ServiceError

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
    "offsets": ("service.cli.offsets", "app", "Where the service reads on: list, accept."),
    "dead-letters": ("service.cli.dead_letters", "app", "Records that could not be used."),
    "schemas": ("service.cli.schemas", "app", "JSON Schemas and AsyncAPI: export, check."),
    "doctor": (
        "service.cli.doctor",
        "doctor",
        "Check every component, and say how to fix what is wrong.",
    ),
    "fl-server": ("service.cli.fl_server", "app", "Be an FL net: an FL-API server."),
    "bench": ("service.cli.bench", "app", "Measure, side by side with baselines."),
}

#: Former names that still work; help does not list them.
_ALIASES: Final = {"fl-api": "fl-server"}


_HELP = """Federated-learning jobs, driven by events.

\b
fl-jobs demo                          train a model here, from nothing
fl-jobs local up && fl-jobs run       a whole stack, and the service on it
fl-jobs submit request.yaml --wait    ask for a training run and watch it
fl-jobs doctor                        what is wrong, and how to fix it
"""


def assemble(chosen: str | None) -> typer.Typer:
    """The whole command line, with the named command's module imported and the others only listed."""
    root = typer.Typer(
        help=_HELP,
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
        rich_markup_mode=None,
    )
    for name, (module, attribute, text) in COMMANDS.items():
        if name != chosen:
            root.command(name, help=text)(_not_loaded)
            continue
        found: Any = getattr(importlib.import_module(module), attribute)
        if isinstance(found, typer.Typer):
            root.add_typer(found, name=name, rich_help_panel=None)
        else:
            root.command(name)(found)
    return root


def _not_loaded() -> None:
    """Stands for a command that this call does not use."""


def _take_env_file(words: list[str]) -> None:
    """`--env-file FILE` before the command is taken out and read here; behind it, it is the command's.

    Raises Invalid when the file can't be read.
    """
    if not words or not words[0].startswith("--env-file"):
        return
    option, equals, path = words.pop(0).partition("=")
    if option != "--env-file" or not (equals or words):
        raise Invalid(
            "--env-file needs the path of a file: fl-jobs --env-file .local/env jobs list"
        )
    # Imported late: settings take longer to load than help takes to print.
    from service.settings import read_env_file

    for key, value in read_env_file(Path(path if equals else words.pop(0))).items():
        os.environ.setdefault(key, value)


def _log_to_stderr() -> None:
    """Standard output is the command's own: a warning there would spoil what `--json` prints."""
    from service.telemetry import logs

    level = os.environ.get("FL_LOG__LEVEL", "").lower()
    logs.configure(level if level in logs.LEVELS else "warning")


_ADDRESS_SETTINGS = {
    "database_away": ("FL_DATABASE__DSN", "postgresql://127.0.0.1"),
    "broker_away": ("FL_KAFKA__BOOTSTRAP_SERVERS", "127.0.0.1"),
}


def _remedy(exc: ServiceError) -> str:
    """What to do about a part of this machine that does not answer; nothing about others."""
    if exc.code not in _ADDRESS_SETTINGS:
        return ""
    setting, default = _ADDRESS_SETTINGS[exc.code]
    address = os.environ.get(setting, default)
    here = any(host in address for host in ("127.0.0.1", "localhost", "[::1]"))
    return f"; `fl-jobs local up` starts a stack here, or correct {setting}" if here else ""


def _say_error(text: str) -> None:
    # Imported late: help prints without it.
    from service.telemetry.terminal import say

    say(f"error: {text}", error=True)


def main(arguments: list[str] | None = None) -> None:
    """The entry point of `fl-jobs`. Ends the process with its exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        _take_env_file(words)
        chosen = next((word for word in words if not word.startswith("-")), None)
        if chosen in _ALIASES:
            words[words.index(chosen)] = chosen = _ALIASES[chosen]
        if chosen is not None:
            _log_to_stderr()
        assemble(chosen)(args=words, prog_name="fl-jobs")
    except KeyboardInterrupt:
        sys.exit(130)
    except ServiceError as exc:
        if os.environ.get("FL_LOG__LEVEL") == "debug":
            raise
        _say_error(f"{exc.message}{_remedy(exc)}")
        sys.exit(1)
    except ContractViolation as exc:
        _say_error(str(exc))
        sys.exit(1)
