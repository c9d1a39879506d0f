"""What the README says of the code is what the code says."""

from __future__ import annotations

import re
from pathlib import Path

from service.domain.diagram import mermaid
from service.settings import Section, Settings

README = (Path(__file__).parents[2] / "README.md").read_text("utf-8")


def _variables() -> set[str]:
    found = set()
    for name, field in Settings.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, Section):
            found |= {f"FL_{name}__{inner}".upper() for inner in kind.model_fields}
        else:
            found.add(f"FL_{name}".upper())
    return found


def test_every_setting_is_in_the_table_and_nothing_else() -> None:
    told = set(re.findall(r"^\| `(FL_[A-Z0-9_]+)` \|", README, re.MULTILINE))
    assert told == _variables()


def test_the_diagram_is_the_graph() -> None:
    assert f"```mermaid\n{mermaid()}\n```" in README


def test_every_command_of_the_readme_exists() -> None:
    from service.cli import COMMANDS

    named = set(re.findall(r"fl-jobs ([a-z][a-z-]+)", README))
    assert named <= set(COMMANDS)
