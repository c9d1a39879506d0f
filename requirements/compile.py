"""Writes the exact sets: `make requirements`. The build backend is in each, so that the project itself is
installed without a download of its own."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
#: The widest first: the others take its versions.
SETS = {"dev": ["dev"], "local": ["local"], "runtime": []}


def main() -> None:
    uv = Path(sys.executable).with_name("uv")
    with tempfile.TemporaryDirectory() as folder:
        backend = Path(folder) / "backend.in"
        backend.write_text("hatchling>=1.27\neditables>=0.5\n")
        for name, extras in SETS.items():
            chosen = [word for extra in extras for word in ("--extra", extra)]
            command = [
                str(uv), "pip", "compile", "pyproject.toml", str(backend), *chosen,
                "--generate-hashes", "--no-emit-index-url", "--universal", "--no-header",
                "--no-annotate", "--python-version", "3.11", "--quiet",
                "--output-file", str(HERE / f"{name}.txt"),
            ]  # fmt: skip
            if name != "dev":
                command += ["--constraint", str(HERE / "dev.txt")]
            subprocess.run(command, check=True, cwd=HERE.parent)


if __name__ == "__main__":
    main()
