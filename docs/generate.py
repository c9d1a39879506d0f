"""Writes what the documents say of the code: `docs/reference/`, and the states in `docs/architecture.md`.

    python -m docs.generate           write the pages
    python -m docs.generate --check   exit 1, and name the pages that differ from the code

Nobody edits those pages by hand; a test runs the check.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import Any, Final, Literal, get_args, get_origin

import typer
from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo
from typer.core import TyperCommand, TyperGroup

from service.cli import COMMANDS
from service.contracts.inbound.reports import JobReport
from service.contracts.outbound.models import JobModel
from service.contracts.schemas.catalogue import EVENTS, TOPICS, Direction, EventType
from service.contracts.schemas.schema_files import json_schema
from service.domain.advice import REASONS, WAITING, Advice
from service.domain.diagram import mermaid
from service.settings import PREFIX, Section, Settings
from service.telemetry.metrics import Metrics

DOCS: Final = Path(__file__).parent
ARCHITECTURE: Final = DOCS / "architecture.md"
_NOTE: Final = "<!-- Made by `make docs` from the code. Do not edit. -->\n"
_BEGIN: Final = "<!-- states: made by `make docs` -->"
_END: Final = "<!-- /states -->"
Rows = Iterable[Sequence[str]]
Makers = Mapping[str, Callable[[], Iterator[str]]]


def pages() -> dict[Path, str]:
    """Every page that is made from the code, whole or in part: its path and its text."""
    makers: Makers = {
        "events.md": _events,
        "reasons.md": _reasons,
        "settings.md": _settings,
        "metrics.md": _metrics,
        "command-line.md": _command_line,
    }
    made = {
        DOCS / "reference" / name: _NOTE + "\n".join(make()).rstrip() + "\n"
        for name, make in makers.items()
    }
    return made | {ARCHITECTURE: _with_states(ARCHITECTURE.read_text("utf-8"))}


def stale() -> list[Path]:
    """Pages that differ from what the code says, and pages of the reference that nothing makes."""
    made = pages()
    differing = [
        path for path, text in made.items() if not path.is_file() or path.read_text("utf-8") != text
    ]
    return differing + [path for path in sorted((DOCS / "reference").glob("*")) if path not in made]


def _with_states(text: str) -> str:
    before, _, rest = text.partition(_BEGIN)
    _, _, after = rest.partition(_END)
    return f"{before}{_BEGIN}\n\n```mermaid\n{mermaid()}\n```\n\n{_END}{after}"


def _table(heads: Sequence[str], rows: Rows) -> Iterator[str]:
    yield "| " + " | ".join(heads) + " |"
    yield "|" + " --- |" * len(heads)
    for row in rows:
        yield "| " + " | ".join(" ".join(cell.split()).replace("|", "\\|") for cell in row) + " |"
    yield ""


# --- events ---------------------------------------------------------------------------------------

#: Models whose fields several events share: told once for each topic.
_SHARED: Final[tuple[type[BaseModel], ...]] = (JobModel, JobReport)
_EMPTY: Final = "empty"
_FIELD_HEADS: Final = ("Field", "Type", "Default", "Meaning")


def _events() -> Iterator[str]:
    yield "# Events\n"
    yield (
        "Every event that the service reads or publishes. A record is a CloudEvent; what its `data` holds is "
        "told here. The JSON Schemas are in [schemas/events](../../schemas/events), examples in "
        "[schemas/examples](../../schemas/examples).\n"
    )
    yield (
        "A field without a default is always there in what the service publishes, and needed in what it "
        "reads. In what it reads, null means the same as leaving an optional field out.\n"
    )
    for topic in TOPICS:
        verb = "Read" if topic.direction is Direction.IN else "Published"
        yield f"## `{topic.name}`\n"
        compacted = " Compacted: the newest record of each key stays." if topic.compacted else ""
        yield f"{verb} by the service. {topic.about}{compacted}\n"
        yield f"Key: {topic.key}.\n"
        told: set[str] = set()
        of_topic = [event for event in EVENTS if event.topic is topic]
        for base in _SHARED:
            by_it = [event for event in of_topic if issubclass(event.model, base)]
            if by_it:
                yield from _shared_fields(base, by_it)
        for event in of_topic:
            yield from _event(event, told)


def _shared_fields(base: type[BaseModel], events: Sequence[EventType]) -> Iterator[str]:
    """The fields that several events have, once."""
    whose = (
        f"of `{events[0].type}` beside its own"
        if len(events) == 1
        else "of every event here about a job"
    )
    yield f"Fields {whose}:\n"
    document = json_schema(events[0])
    rows = [row for row in _fields(document, document) if row[0].strip("`") in base.model_fields]
    yield from _table(_FIELD_HEADS, rows)


def _event(event: EventType, told: set[str]) -> Iterator[str]:
    """`told`: shapes inside this topic's events that were described already."""
    document = json_schema(event)
    base = next((base for base in _SHARED if issubclass(event.model, base)), None)
    shared = {} if base is None else base.model_fields
    yield f"### `{event.type}`\n"
    yield f"{event.about}\n"
    rows = [row for row in _fields(document, document) if row[0].strip("`") not in shared]
    if rows:
        yield from _table(_FIELD_HEADS, rows)
    else:
        yield "No fields of its own.\n"
    for name, inner in document.get("$defs", {}).items():
        if inner.get("properties") and name not in told:
            told.add(name)
            yield f"**`{name}`** {' '.join(inner.get('description', '').split())}\n"
            yield from _table(_FIELD_HEADS, _fields(inner, document))


def _fields(shape: Mapping[str, Any], document: Mapping[str, Any]) -> Iterator[Sequence[str]]:
    required = set(shape.get("required", ()))
    for name, field in shape.get("properties", {}).items():
        # A default that is made anew for each event is not in the schema: an empty list or object.
        default = "" if name in required else f"`{_plain(field.get('default', _EMPTY))}`"
        if default == f"`{_EMPTY}`":
            default = "empty"
        yield f"`{name}`", _kind(field, document), default, field.get("description", "")


def _plain(default: object) -> str:
    if default is None:
        return "null"
    return str(default).lower() if isinstance(default, bool) else str(default)


def _kind(field: Mapping[str, Any], document: Mapping[str, Any]) -> str:
    """A field's type in words, with its bounds."""
    if "$ref" in field:
        name = field["$ref"].rsplit("/", 1)[-1]
        if name == "JsonValue":
            return "any value"
        target = document["$defs"][name]
        return f"`{name}`" if target.get("properties") else _kind(target, document)
    if "anyOf" in field and "type" not in field:
        return " or ".join(dict.fromkeys(_kind(one, document) for one in field["anyOf"]))
    if "enum" in field:
        return _codes_in_words(field["enum"])
    if "const" in field:
        return f"`{field['const']}`"
    kind = field.get("type", "any value")
    if kind == "array":
        inner = _kind(field.get("items", {}), document)
        return f"list of {inner}{_bounds(field, 'minItems', 'maxItems')}"
    if kind == "object" and isinstance(field.get("additionalProperties"), dict):
        values = _kind(field["additionalProperties"], document)
        return "object" if values == "any value" else f"object of {values}"
    if kind == "string":
        named = {"uuid": "UUID", "date-time": "time, RFC 3339 with offset"}
        if field.get("format") in named:
            return named[field["format"]]
        return "text" + _bounds(field, "minLength", "maxLength")
    if kind in ("integer", "number"):
        word = {"integer": "whole number", "number": "number"}[kind]
        return word + _bounds(field, "minimum", "maximum")
    return {"boolean": "`true` · `false`", "null": "null", "object": "object"}.get(kind, str(kind))


def _codes_in_words(codes: Sequence[str]) -> str:
    """The values themselves, or where they are described."""
    if set(codes) in ({code.value for code in REASONS}, {code.value for code in WAITING}):
        return "[code](reasons.md)"
    return " · ".join(f"`{one}`" for one in codes)


def _bounds(field: Mapping[str, Any], least: str, most: str) -> str:
    low, high = field.get(least), field.get(most)
    if low is not None and low == high:
        return f" ({low:,})"
    # Bounds that are those of the number's own kind say nothing.
    huge = 2**31 - 1
    if isinstance(high, float) or (isinstance(high, int) and high >= huge):
        high = None
    if low is not None and low <= -huge:
        low = None
    if low is None and high is None:
        return ""
    if high is None:
        return f" ({low:,} or more)"
    return f" (up to {high:,})" if low is None else f" ({low:,} to {high:,})"


# --- reasons --------------------------------------------------------------------------------------


def _reasons() -> Iterator[str]:
    yield "# Reasons\n"
    yield (
        "`reason.code` of an event is one of these. Codes are stable; messages may change. "
        "`fl-jobs jobs show JOB` prints what to do for one job.\n"
    )
    yield from _codes(REASONS)
    yield "## Why a job waits\n"
    yield "`waiting_for` of `fl.job.queued.v1`, and `reason.code` of `fl.job.waiting.v1`.\n"
    yield from _codes(WAITING)


def _codes(entries: Mapping[Any, Advice]) -> Iterator[str]:
    rows = [(f"`{code.value}`", each.meaning, each.action) for code, each in entries.items()]
    yield from _table(("Code", "What it means", "What to do"), rows)


# --- settings -------------------------------------------------------------------------------------

_SETTING_HEADS: Final = ("Variable", "Default", "Type", "What it is")


def _settings() -> Iterator[str]:
    yield "# Settings\n"
    yield (
        "Environment variables, or files of the folder that `FL_SECRETS_DIR` names. `--env-file` takes a "
        "file of `KEY=value` lines, as `fl-jobs local up` writes one; the environment goes before it. All "
        "wrong ones are named together at the start, and `fl-jobs doctor` names those that nothing reads.\n"
    )
    single = []
    for name, field in Settings.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, Section):
            yield f"## {PREFIX}{name.upper()}\n"
            yield f"{(kind.__doc__ or '').strip()}\n"
            rows = [_setting(f"{name}__{inner}", each) for inner, each in kind.model_fields.items()]
            yield from _table(_SETTING_HEADS, rows)
        else:
            single.append(_setting(name, field))
    yield "## Single ones\n"
    yield from _table(_SETTING_HEADS, single)


def _setting(name: str, field: FieldInfo) -> Sequence[str]:
    default = None if field.default_factory is not None else field.default
    if isinstance(default, SecretStr):
        default = default.get_secret_value()
    shown = "empty" if default == "" else "" if default is None else f"`{_plain(default)}`"
    return f"`{(PREFIX + name).upper()}`", shown, _setting_kind(field), field.description or ""


_WORDS: Final[Mapping[Any, str]] = {
    int: "whole number",
    float: "number",
    str: "text",
    bool: "`true` · `false`",
    Path: "path",
    SecretStr: "secret",
}
_LIMITS: Final = {"ge": "{:,} or more", "gt": "above {:,}", "le": "at most {:,}"}


def _setting_kind(field: FieldInfo) -> str:
    """A setting's type and bounds in words."""
    kinds = get_args(field.annotation) if type(None) in get_args(field.annotation) else ()
    texts, metadata = [], list(field.metadata)
    for kind in kinds or (field.annotation,):
        if kind is type(None):
            continue
        if hasattr(kind, "__metadata__"):
            metadata += [one for each in kind.__metadata__ for one in getattr(each, "metadata", ())]
            kind = get_args(kind)[0]
        literal = get_origin(kind) is Literal
        texts.append(" · ".join(f"`{one}`" for one in get_args(kind)) if literal else _WORDS[kind])
    bounds = [
        form.format(getattr(each, name))
        for each in metadata
        for name, form in _LIMITS.items()
        if getattr(each, name, None) is not None
    ]
    return " or ".join(texts) + (f" ({', '.join(bounds)})" if bounds else "")


# --- metrics --------------------------------------------------------------------------------------


def _metrics() -> Iterator[str]:
    yield "# Metrics\n"
    yield (
        "`/metrics` of the web port, in Prometheus' text format. No label grows without bound: there is none "
        "of a job or a project. A process exports what its roles do.\n"
    )
    rows = [
        (f"`{each.name}`", each.kind, ", ".join(f"`{one}`" for one in each.labels), each.about)
        for each in sorted(Metrics().exported(), key=lambda each: each.name)
    ]
    yield from _table(("Metric", "Kind", "Labels", "What it is"), rows)


# --- command line ---------------------------------------------------------------------------------


def _command_line() -> Iterator[str]:
    yield "# Command line\n"
    yield (
        "Exit codes: 0 fine, 1 failed, 2 wrong usage. `--json` prints for machines. `fl-jobs --env-file FILE "
        "COMMAND` takes the settings from a file; without any, those of `.local/env` are taken.\n"
    )
    for name in COMMANDS:
        yield from _command(command(name), f"fl-jobs {name}")


def command(name: str) -> TyperCommand | TyperGroup:
    """A command or command group of `fl-jobs`, loaded."""
    module, attribute, _ = COMMANDS[name]
    found: Any = getattr(importlib.import_module(module), attribute)
    app = found
    if not isinstance(found, typer.Typer):
        app = typer.Typer(rich_markup_mode=None, add_completion=False)
        app.command(name)(found)
    made = typer.main.get_command(app)
    assert isinstance(made, TyperCommand | TyperGroup)
    return made


def _command(found: Any, path: str) -> Iterator[str]:
    yield f"{'#' * (path.count(' ') + 1)} `{path}`\n"
    yield from _help(found.help or "")
    if isinstance(found, TyperGroup):
        for name, inner in found.commands.items():
            yield from _command(inner, f"{path} {name}")
        return
    rows = [_parameter(each) for each in found.params if each.name != "help"]
    if rows:
        yield from _table(("Argument or option", "Default", "What it is"), rows)
    yield from _help(found.epilog or "")


def _help(text: str) -> Iterator[str]:
    """A help text; what keeps its line breaks there (`\\b`) becomes a code block."""
    for part in text.strip().split("\n\n"):
        if part.startswith("\b"):
            yield (
                "```sh\n"
                + "\n".join(line.strip() for line in part[1:].strip().split("\n"))
                + "\n```\n"
            )
        elif part.startswith("Example: "):
            yield f"```sh\n{part.removeprefix('Example: ')}\n```\n"
        elif part:
            yield " ".join(part.split()) + "\n"


def _parameter(each: Any) -> Sequence[str]:
    about = getattr(each, "help", None) or ""
    if each.param_type_name == "argument":
        return f"`{each.name.upper()}`", "required" if each.required else "", about
    names = ", ".join(f"`{one}`" for one in (*each.opts, *each.secondary_opts))
    default = each.default.value if isinstance(each.default, Enum) else each.default
    nothing = default is None or default is False or callable(default)
    return names, "" if nothing else f"`{default}`", about


def main(arguments: Sequence[str]) -> int:
    """Write the pages, or compare them with `--check`. Returns the exit code."""
    differing = stale()
    if "--check" in arguments:
        for path in differing:
            name = path.relative_to(DOCS.parent)
            print(f"{name} differs from the code; run `make docs`", file=sys.stderr)
        return 1 if differing else 0
    made = pages()
    for path in differing:
        if path in made:
            path.parent.mkdir(exist_ok=True)
            path.write_text(made[path], "utf-8")
        else:
            path.unlink()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
