"""The rooms of the house keep to themselves: imports, backends, file sizes, names of machines."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
SERVICE = ROOT / "service"
#: The rooms that may ask which backend they speak to.
_TELLS_BACKENDS_APART = {"adapters", "bundles", "fl_server"}
MOST_LINES = 600


def _tracked() -> list[Path]:
    done = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if done.returncode:  # an unpacked archive
        return [p for p in ROOT.rglob("*.py") if ".venv" not in str(p)]
    return [path for line in done.stdout.splitlines() if (path := ROOT / line).is_file()]


def _compared_backends(tree: ast.AST) -> Iterator[int]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare):
            parts: list[ast.AST] = [node.left, *node.comparators]
        elif isinstance(node, ast.MatchValue):
            parts = [node.value]
        else:
            continue
        for part in parts:
            for inner in ast.walk(part):
                if not isinstance(inner, ast.Attribute) or not isinstance(inner.value, ast.Name):
                    continue
                if inner.value.id == "FLBackend":
                    yield inner.lineno


def test_imports_go_down_the_house() -> None:
    program = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run(
        [str(program), "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-4_000:] + done.stderr[-2_000:]
    assert "0 broken" in done.stdout


def test_backends_are_told_apart_only_where_they_are_spoken_to() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{line}"
        for path in SERVICE.rglob("*.py")
        if path.relative_to(SERVICE).parts[0] not in _TELLS_BACKENDS_APART
        for line in _compared_backends(ast.parse(path.read_text("utf-8")))
    ]
    assert found == []


def test_a_comparison_with_a_backend_is_seen() -> None:
    tree = ast.parse("if net.backend in (FLBackend.FLOWER, None):\n    pass")
    assert list(_compared_backends(tree)) == [1]


def test_a_file_is_one_subject() -> None:
    long = {
        str(path.relative_to(ROOT)): count
        for path in _tracked()
        if path.suffix in {".py", ".sql"} and path.is_relative_to(SERVICE)
        if (count := len(path.read_text("utf-8").splitlines())) > MOST_LINES
    }
    assert long == {}


def test_a_class_has_a_name_of_its_own() -> None:
    homes: dict[str, list[str]] = {}
    for path in SERVICE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.ClassDef):
                homes.setdefault(node.name, []).append(str(path.relative_to(ROOT)))
    assert {name: found for name, found in homes.items() if len(found) > 1} == {}


def test_every_module_says_what_it_is() -> None:
    silent = [
        str(path.relative_to(ROOT))
        for path in SERVICE.rglob("*.py")
        if (text := path.read_text("utf-8")).strip() and ast.get_docstring(ast.parse(text)) is None
    ]
    assert silent == []


def test_no_file_names_a_machine_or_an_index() -> None:
    """Where packages come from is the machine's own setting; a path of one machine helps nobody else."""
    indexes = ("files." + "pythonhosted.org", "pypi" + ".org/simple", "index" + "-url http")
    machine = re.compile(r"(?<![\w./])/(work|home/\w+|Users/\w+|root)/")
    found = []
    for path in _tracked():
        try:
            text = path.read_text("utf-8")
        except UnicodeDecodeError:
            continue
        found += [f"{path.relative_to(ROOT)}: {word}" for word in indexes if word in text]
        match = machine.search(text)
        if match:
            found.append(f"{path.relative_to(ROOT)}: {match.group()}")
    assert found == []


def test_requirements_are_exact_and_hashed() -> None:
    for name in ("runtime", "local", "dev"):
        text = (ROOT / "requirements" / f"{name}.txt").read_text("utf-8")
        wanted = re.findall(r"^([a-zA-Z0-9._-]+)(.*?)(?:\s*;.*?)?\s*\\?$", text, re.MULTILINE)
        assert wanted, name
        assert [line for line in wanted if not line[1].startswith("==")] == [], name
        assert text.count("--hash=sha256:") >= len(wanted), name
        assert "http" not in text.replace("httpcore", "").replace("httptools", "").replace(
            "httpx", ""
        ).replace("aiohttp", ""), name
