"""What the project depends on is what it imports."""

from __future__ import annotations

import ast
import re
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

ROOT = Path(__file__).parents[2]
#: Imported by another dependency at every call, which fails slowly where it is not installed.
_IMPORTED_BY_OTHERS = {"sniffio"}


def _imported() -> set[str]:
    """The distributions whose modules the service imports, normalised."""
    found: set[str] = set()
    for path in (ROOT / "service").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                found.add(node.module.split(".")[0])
    by_module = packages_distributions()
    return {_plain(name) for module in found for name in by_module.get(module, [])}


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_every_runtime_dependency_is_imported() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    named = {
        _plain(re.split(r"[<>=!~;\[ ]", line, maxsplit=1)[0]) for line in project["dependencies"]
    }
    assert named - _imported() == _IMPORTED_BY_OTHERS
