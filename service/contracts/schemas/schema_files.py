"""The committed files of `schemas/`: JSON Schemas, examples and the AsyncAPI document.

The examples are files of their own right, written by hand for what comes in; the rest is made from the
code. `export` writes all of them into a folder, `check` says what differs there. Promise: equal code
and examples give equal bytes, so that the files can live in version control; a file that belongs to
none of them is a difference too. `schemas/sql/` is not touched: it is written by hand.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel
from pydantic.json_schema import JsonSchemaMode

from service.contracts.inbound import beyond_schema
from service.contracts.package_data import data_path
from service.contracts.schemas import asyncapi
from service.contracts.schemas.catalogue import EVENTS, Direction, EventType
from service.contracts.schemas.json_schema import DRAFT, SchemaGenerator, without_titles

_GENERATED: Final = ("events", "examples")


def json_schema(event: EventType) -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of an event type's `data`."""
    made = _bare(event.model, event.direction)
    made.pop("title", None)
    made.pop("description", None)
    named = {
        "$schema": DRAFT,
        "$id": event.schema_id,
        "title": event.type,
        "description": event.about,
    }
    if event.direction is Direction.IN:
        named["$comment"] = beyond_schema.comment(event.type)
    return named | made


def _bare(model: type[BaseModel], direction: Direction) -> dict[str, Any]:
    mode: JsonSchemaMode = "validation" if direction is Direction.IN else "serialization"
    schema = model.model_json_schema(mode=mode, schema_generator=SchemaGenerator)
    plain: dict[str, Any] = without_titles(schema)
    return plain


def generated() -> dict[str, bytes]:
    """Every file: path below `schemas/` -> content."""
    files = {f"events/{event.type}.json": _pretty(json_schema(event)) for event in EVENTS}
    root = data_path("schemas")
    for path in sorted((root / "examples").rglob("*.json")):
        files[path.relative_to(root).as_posix()] = path.read_bytes()
    files["asyncapi.yaml"] = asyncapi.document()
    return files


def _pretty(value: Any) -> bytes:
    return (json.dumps(value, indent=2, ensure_ascii=True) + "\n").encode()


def export(folder: Path) -> list[Path]:
    """Write every file below `folder`, remove those of their folders that are none of them.

    Returns the paths that changed. Raises OSError when the folder can't be written.
    """
    files = generated()
    changed: list[Path] = []
    for name, content in files.items():
        path = folder / name
        if not path.is_file() or path.read_bytes() != content:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
            changed.append(path)
    for path in _stray(folder, files):
        path.unlink()
        changed.append(path)
    return changed


def check(folder: Path | None = None) -> list[str]:
    """What differs between `folder` (default: the shipped `schemas/`) and the code, one line each."""
    root = data_path("schemas") if folder is None else folder
    files = generated()
    drifts: list[str] = []
    for name, content in files.items():
        path = root / name
        if not path.is_file():
            drifts.append(f"{name}: missing")
        elif path.read_bytes() != content:
            drifts.append(f"{name}: differs from what the code and the examples say")
    drifts += [f"{path.relative_to(root)}: nothing calls for it" for path in _stray(root, files)]
    return drifts


def _stray(root: Path, files: dict[str, bytes]) -> list[Path]:
    found = [path for part in _GENERATED for path in (root / part).rglob("*") if path.is_file()]
    return sorted(path for path in found if path.relative_to(root).as_posix() not in files)
