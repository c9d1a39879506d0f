"""Draws the pictures of the README: runs the demo, and keeps what it prints and plots.

    python -m docs.pictures

The terminal's text becomes `docs/images/demo.svg`, the demo's plot `docs/images/learning-curve.png`.
"""

from __future__ import annotations

import io
import os
import re
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

from rich.terminal_theme import DEFAULT_TERMINAL_THEME

from service.demo import environment, report, runner
from service.telemetry.terminal import Terminal

IMAGES: Final = Path(__file__).parent / "images"
_WIDTH: Final = 108
#: The picture needs nothing from elsewhere: any monospaced font will do.
_FROM_ELSEWHERE: Final = re.compile(r"@font-face \{.*?\}|<!--.*?-->", re.DOTALL)


def main() -> int:
    """Run the demo in a folder of its own and write both pictures. Returns the exit code."""
    began = time.monotonic()
    environment.forget(os.environ)
    IMAGES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="fl-pictures-") as folder:
        os.chdir(folder)
        os.environ.setdefault("MPLCONFIGDIR", str(Path(folder, "cache")))
        result = runner.run_demo(
            Path("fl-demo"), None, Terminal(stderr=True), quiet=False, keep=False, began=began
        )
        if not result.completed or result.picture is None:
            return 1
        console = Terminal(record=True, width=_WIDTH, file=io.StringIO(), force_terminal=True)
        for name, table in report.tables(result).items():
            # The plot shows the rounds.
            if name != "rounds":
                console.print(table)
        drawn = console.export_svg(
            title="make demo", theme=DEFAULT_TERMINAL_THEME, unique_id="demo"
        )
        (IMAGES / "demo.svg").write_text(_FROM_ELSEWHERE.sub("", drawn), "utf-8")
        shutil.copyfile(result.picture, IMAGES / "learning-curve.png")
        os.chdir(IMAGES)
    return 0


if __name__ == "__main__":
    sys.exit(main())
