"""What the documents say of the code is what the code says."""

from __future__ import annotations

import ast
import json
import re
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.core import TyperGroup

from docs import generate
from service.cli import COMMANDS
from service.contracts import registry_file
from service.contracts.inbound import training
from service.contracts.schemas.catalogue import EVENTS
from service.contracts.schemas.schema_files import json_schema
from service.domain.diagram import mermaid
from service.settings import Section, Settings
from service.telemetry.metrics import Metrics

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
_MOST_WORDS = 900


def _named(path: Path) -> str:
    return str(path.relative_to(ROOT))


def _blocks(language: str) -> list[Any]:
    """The code blocks of a language, each with the page it stands on."""
    fence = re.compile(rf"^```{language}\n(.*?)^```", re.MULTILINE | re.DOTALL)
    return [
        pytest.param(block, id=f"{_named(page)}-{number}")
        for page in PAGES
        for number, block in enumerate(fence.findall(page.read_text("utf-8")), 1)
    ]


def test_what_is_made_from_the_code_is_current() -> None:
    assert [_named(path) for path in generate.stale()] == []


def test_the_diagram_is_the_graph() -> None:
    assert f"```mermaid\n{mermaid()}\n```" in generate.ARCHITECTURE.read_text("utf-8")


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text("utf-8").split()) <= _MOST_WORDS


# --- what the reference must hold -----------------------------------------------------------------


def test_every_setting_is_described() -> None:
    sections = {
        name: field.annotation
        for name, field in Settings.model_fields.items()
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section)
    }
    fields = [
        (f"FL_{name}__{inner}".upper(), field)
        for name, section in sections.items()
        for inner, field in section.model_fields.items()
    ] + [
        (f"FL_{name}".upper(), field)
        for name, field in Settings.model_fields.items()
        if name not in sections
    ]
    assert [name for name, field in fields if not field.description] == []
    assert [name for name, section in sections.items() if not section.__doc__] == []
    page = (ROOT / "docs/reference/settings.md").read_text("utf-8")
    told = set(re.findall(r"^\| `(FL_[A-Z0-9_]+)` \|", page, re.MULTILINE))
    assert told == {name for name, _ in fields}


def test_every_field_of_every_event_is_described() -> None:
    bare = []
    for event in EVENTS:
        schema = json_schema(event)
        for shape in (schema, *schema.get("$defs", {}).values()):
            for name, field in shape.get("properties", {}).items():
                if not field.get("description"):
                    bare.append(f"{event.type}: {name}")
    assert bare == []


def test_every_metric_that_is_scraped_is_told() -> None:
    metrics = Metrics()
    scraped = set(re.findall(r"^# TYPE (\S+) ", metrics.text().decode(), re.MULTILINE))
    told = {each.name for each in metrics.exported()}
    counts = {name.removesuffix("_total") for name in told}
    assert scraped <= told | {f"{name}_created" for name in counts}
    assert [each.name for each in metrics.exported() if not each.about] == []


def test_every_option_has_its_help() -> None:
    bare = [
        f"{path} {option.opts[0]}"
        for name in COMMANDS
        for path, command in _commands(generate.command(name), name)
        for option in command.params
        if not getattr(option, "help", None)
    ]
    assert bare == []


def _commands(command: Any, path: str) -> Iterator[tuple[str, Any]]:
    if isinstance(command, TyperGroup):
        for name, inner in command.commands.items():
            yield from _commands(inner, f"{path} {name}")
    else:
        yield path, command


# --- what the pages name is there -----------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES, ids=_named)
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    text = re.sub(r"^```.*?^```", "", page.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        path, _, anchor = target.partition("#")
        if "://" in target or target.startswith("mailto:"):
            continue
        file = page.parent / path if path else page
        if not file.exists() or (anchor and anchor not in _anchors(file)):
            broken.append(target)
    assert broken == []


def _anchors(page: Path) -> set[str]:
    """The headings of a page as addresses."""
    heads = re.findall(r"^#+ (.+)$", page.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


@pytest.mark.parametrize("page", PAGES, ids=_named)
def test_every_command_that_a_page_names_exists_with_its_options(page: Path) -> None:
    wrong = []
    for call in re.findall(r"fl-jobs((?: [^\s`|;&#()\"'→,]+)+)", page.read_text("utf-8")):
        if problem := _problem(call.split()):
            wrong.append(f"fl-jobs{call}: {problem}")
    assert wrong == []


def _problem(words: list[str]) -> str | None:
    """What is wrong with a call of `fl-jobs`; text around it is no call."""
    if words[0] == "--env-file":
        words = words[2:]
    name = words[0] if words else "FILE"
    if not re.fullmatch(r"[a-z][a-z-]*", name):
        return None
    if name not in COMMANDS:
        return "no such command"
    command: Any = generate.command(name)
    rest = words[1:]
    if isinstance(command, TyperGroup):
        if not rest or not re.fullmatch(r"[a-z][a-z-]*", rest[0]):
            return None
        if rest[0] not in command.commands:
            return f"no such command of the group {name}"
        command, rest = command.commands[rest[0]], rest[1:]
    known = {option for each in command.params for option in (*each.opts, *each.secondary_opts)}
    options = {re.sub(r"[^a-z-].*", "", word) for word in rest if word.startswith("-")}
    unknown = {option for option in options if re.fullmatch(r"--?[a-z][a-z-]*", option)} - known
    return f"no option {', '.join(sorted(unknown))}" if unknown - {"--help"} else None


@pytest.mark.parametrize("page", PAGES, ids=_named)
def test_every_file_that_a_page_names_is_there(page: Path) -> None:
    named = re.findall(
        r"`((?:service|tests|schemas|assets|bench|deploy|requirements|docs)/[\w./-]+)`",
        page.read_text("utf-8"),
    )
    assert [name for name in named if not (ROOT / name).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=_named)
def test_every_setting_that_a_page_names_exists(page: Path) -> None:
    reference = (ROOT / "docs/reference/settings.md").read_text("utf-8")
    named = set(re.findall(r"`?(FL_[A-Z0-9]+(?:_[A-Z0-9]+)*(?:__[A-Z0-9_]+)?)\b", page.read_text()))
    sections = {f"FL_{name.upper()}" for name in Settings.model_fields}
    assert {name for name in named if name not in reference} - sections <= {
        "FL_FAULTPOINT",
        "FL_SIM_SEEDS",
    }


def test_every_field_of_the_registry_is_on_the_operators_page() -> None:
    page = (ROOT / "docs/operator.md").read_text("utf-8")
    entries = (registry_file.NetEntry, registry_file.ProjectEntry, registry_file.RegistryFile)
    fields = {name for entry in entries for name in entry.model_fields} - {"id", "name"}
    assert {name for name in fields if not re.search(rf"\b{name}\b", page)} == set()


def test_the_pictures_are_small_and_need_nothing_from_elsewhere() -> None:
    pictures = sorted((ROOT / "docs/images").iterdir())
    assert [path.name for path in pictures] == ["demo.svg", "learning-curve.png"]
    assert all(path.stat().st_size < 150_000 for path in pictures)
    drawn = pictures[0].read_text("utf-8")
    assert set(re.findall(r"https?://[^\s\"')]+", drawn)) == {"http://www.w3.org/2000/svg"}


@pytest.mark.parametrize("page", PAGES, ids=_named)
def test_every_target_of_make_that_a_page_names_exists(page: Path) -> None:
    targets = set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    text = page.read_text("utf-8")
    calls = re.findall(r"`make ([a-z -]+)`|^make ([a-z -]+)", text, re.MULTILINE)
    named = {word for call in calls for word in "".join(call).split()}
    assert named <= targets


# --- what the pages show works --------------------------------------------------------------------


@pytest.mark.parametrize("block", _blocks("python"))
def test_python_of_the_pages_compiles(block: str) -> None:
    ast.parse(block)


@pytest.mark.parametrize("block", _blocks("json"))
def test_json_of_the_pages_parses(block: str) -> None:
    json.loads(block)


@pytest.mark.parametrize("block", _blocks("yaml"))
def test_yaml_of_the_pages_is_a_request_or_a_registry(block: str) -> None:
    data = yaml.safe_load(block)
    if "nets" in data:
        registry_file.load(block.encode())
    else:
        training.request(
            {"job_id": str(uuid.uuid4()), "model_id": str(uuid.uuid4())}
            | json.loads(json.dumps(data))
        )


def test_the_request_that_is_shown_as_json_is_one() -> None:
    page = (ROOT / "docs/producer.md").read_text("utf-8")
    shown = re.findall(r"'(\{\"job_id\".*\})'", page)
    assert shown
    for text in shown:
        training.request(json.loads(text))
