"""`fl-jobs bench`: the measurements of a checkout, which a wheel does not hold.

Promises the command line of `python -m bench`, and only from the checkout that this package itself lies
in: what a wheel runs is never measured by another version's programs.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import service
from service.errors import MissingDependency


def __getattr__(name: str) -> Any:
    """`app` is looked up when the command is called. Raises MissingDependency outside a checkout."""
    if name != "app":
        raise AttributeError(name)
    root = Path(service.__file__).parents[1]
    if not (root / "bench" / "__main__.py").is_file():
        raise MissingDependency(
            "the measurements are part of a checkout, not of this installation: `make bench` there"
        )
    if str(root) not in sys.path:
        sys.path.insert(0, str(root))
    try:
        return importlib.import_module("bench.__main__").app
    except ModuleNotFoundError as exc:
        raise MissingDependency(
            f"{exc.name} is missing: pip install -e '.[bench]' in the checkout"
        ) from exc
