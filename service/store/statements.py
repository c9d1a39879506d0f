"""SQL as files: `sql/*.sql` holds named statements, each under a line `-- name: <name>`.

`QUERIES["name"]` is the text. Loaded once; a missing name is a KeyError at import of its user's module.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

FOLDER: Final = Path(__file__).parent / "sql"
_NAME: Final = re.compile(r"^-- name: (\w+)\s*$", re.MULTILINE)


def load() -> dict[str, str]:
    """Every named statement of the folder; a file without names is one statement, called as the file."""
    found: dict[str, str] = {}
    for path in sorted(FOLDER.glob("*.sql")):
        text = path.read_text("utf-8")
        parts = _NAME.split(text)
        pairs = (
            zip(parts[1::2], parts[2::2], strict=True) if len(parts) > 1 else [(path.stem, text)]
        )
        for name, statement in pairs:
            if name in found:
                raise ValueError(f"two statements are named {name}")
            found[name] = statement.strip().rstrip(";")
    return found


QUERIES: Final = load()
