"""SQL as files: `sql/*.sql` holds named statements, each under a line `-- name: <name>`, a comment that says
what it is for, and one that names its parameters: `-- $1 job, $2 limit`.

`QUERIES["name"]` is the text. Loaded once; a missing name is a KeyError at import of its user's module.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

FOLDER: Final = Path(__file__).parent / "sql"
_NAME: Final = re.compile(r"^-- name: (\w+)\s*$", re.MULTILINE)


def load() -> dict[str, str]:
    """Every named statement of the folder."""
    found: dict[str, str] = {}
    for path in sorted(FOLDER.glob("*.sql")):
        before, *parts = _NAME.split(path.read_text("utf-8"))
        if before.strip():
            raise ValueError(f"{path.name} begins with a statement that has no name")
        for name, statement in zip(parts[::2], parts[1::2], strict=True):
            if name in found:
                raise ValueError(f"two statements are named {name}")
            found[name] = statement.strip().rstrip(";")
    return found


QUERIES: Final = load()
