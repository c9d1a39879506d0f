"""The example files, read and written."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from service.contracts.package_data import data_path
from service.contracts.schemas.catalogue import BY_TYPE, Direction
from tests.examples import published
from tests.examples.record import Example, from_record

FOLDER: Final = data_path("schemas") / "examples"


def shipped_examples() -> list[Example]:
    """All examples as they lie on disk."""
    found = []
    for path in sorted(FOLDER.rglob("*.json")):
        record = json.loads(path.read_text())
        found.append(from_record(path.parent.parent.name, path.stem, record))
    return found


def outbound_files() -> dict[Path, bytes]:
    """The files of what we publish, as the code that publishes writes them."""
    return {_path(example): _content(example) for example in published.examples()}


def stray_outbound_files() -> Iterator[Path]:
    """Outbound examples on disk that no code writes."""
    written = outbound_files()
    for path in sorted(FOLDER.rglob("*.json")):
        event = BY_TYPE[path.parent.parent.name]
        if event.direction is Direction.OUT and path not in written:
            yield path


def _path(example: Example) -> Path:
    kind = "invalid" if example.invalid else "valid"
    return FOLDER / example.type / kind / f"{example.name}.json"


def _content(example: Example) -> bytes:
    return (json.dumps(example.record(), indent=2, ensure_ascii=True) + "\n").encode()
