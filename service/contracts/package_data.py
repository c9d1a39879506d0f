"""Where the files that travel with the code are found: `schemas/` and `assets/`.

In a source checkout they lie beside the `service` package, in an installed wheel inside it. The
checkout wins, so that an edited file is the one that is used. A missing folder is no error here:
the path it would have in a wheel is returned, and whoever opens it says what is missing.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

_PACKAGE: Final = Path(__file__).resolve().parent.parent


def data_path(name: str) -> Path:
    """The absolute path of the shipped file or folder `name`, for example `schemas` or `assets`."""
    beside = _PACKAGE.parent / name
    # A folder of that name beside an installed package (site-packages/assets) is somebody else's.
    in_checkout = (_PACKAGE.parent / "pyproject.toml").is_file()
    return beside if in_checkout and beside.exists() else _PACKAGE / name
