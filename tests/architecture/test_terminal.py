"""Whatever a command prints goes by one way, which makes foreign text harmless."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
#: What people see printed; the way itself is `service/telemetry/terminal.py`.
PRINTING = ("service/cli", "service/demo", "service/local", "bench/__main__.py")
#: Calls that write to standard output or standard error by themselves, or make a console that would.
_AROUND = {
    "print",
    "typer.echo",
    "typer.secho",
    "click.echo",
    "rich.print",
    "Console",
    "Live.console.print",
}
_STREAMS = {
    "sys.stdout.write",
    "sys.stderr.write",
    "sys.stdout.writelines",
    "sys.stderr.writelines",
}


def _calls_around(tree: ast.AST) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            if name in _AROUND | _STREAMS:
                yield node.lineno, name
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and "[/" in node.value:
            yield node.lineno, "markup"


def test_no_command_prints_around_the_one_way() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{line} {name}"
        for place in PRINTING
        for path in sorted(
            (ROOT / place).rglob("*.py") if (ROOT / place).is_dir() else [ROOT / place]
        )
        for line, name in _calls_around(ast.parse(path.read_text("utf-8")))
    ]
    assert found == []


def test_a_call_around_it_is_seen() -> None:
    tree = ast.parse("print(x)\ntyper.echo(x)\nConsole().print(x)\nout().print('[bold]x[/]')")
    assert {line for line, _ in _calls_around(tree)} == {1, 2, 3, 4}
