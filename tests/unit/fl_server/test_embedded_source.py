"""A source or a config that can't be read is refused with the line and what to change."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from service.fl_server.embedded.plan import read_plan
from service.fl_server.embedded.source import MAX_SOURCE, source_problem
from service.fl_server.http_errors import BadApp
from tests.conformance.fl_server_fixtures import ADDING, SLOTS, app_files

UTF8 = "save it as UTF-8"
WRONG = {
    "utf-16": (ADDING.encode("utf-16"), f"trainer.py is saved as UTF-16: {UTF8}"),
    "utf-16 big": (b"\xfe\xff" + ADDING.encode("utf-16-be"), "is saved as UTF-16"),
    "utf-16 unmarked": (ADDING.encode("utf-16-le"), "is saved as UTF-16"),
    "utf-16 big unmarked": (ADDING.encode("utf-16-be"), "is saved as UTF-16"),
    "utf-32": (ADDING.encode("utf-32"), "is saved as UTF-32"),
    "utf-32 unmarked": (ADDING.encode("utf-32-le"), "is saved as UTF-32"),
    "nul": (b"a = 1\nb = 2\x00\n", "trainer.py line 2: a NUL byte"),
    "latin-1": ("a = 1\n\n# caf\xe9\n".encode("latin-1"), "trainer.py line 3: the byte 0xe9"),
    "latin-1 first": ("# caf\xe9\n".encode("latin-1"), "trainer.py line 1: the byte 0xe9"),
    "unknown": (b"# -*- coding: utf8mb4 -*-\n", "unknown encoding: utf8mb4: save it as UTF-8"),
    "no text encoding": (b"# coding: rot13\n", "names the encoding rot13"),
    "cookie lies": (b"# coding: ascii\nx = '\xc3\xa9'\n", "names the encoding ascii"),
    "mark and cookie": (b"\xef\xbb\xbf# coding: latin-1\n", UTF8),
    "syntax": (b"import os\ndef f(:\n", "trainer.py line 2: invalid syntax"),
    "indentation": (b"def f():\nreturn 1\n", "trainer.py line 2: expected an indented block"),
    "tabs": (b"if 1:\n\tx = 1\n        y = 2\n", "trainer.py line 3: inconsistent use of tabs"),
    "merge": (b"x = 1\n<<<<<<< HEAD\n", "trainer.py line 2: invalid syntax"),
    "parentheses": (b"x = " + b"(" * 500, "trainer.py line 1: too many nested parentheses"),
    "nested": (b"-" * 100_000 + b"1", "is nested too deeply"),
    "digits": (b"x = " + b"1" * 5_000, "trainer.py line 1: Exceeds the limit"),
    "archive": (b"PK\x03\x04\x14\x00\x00\x00", "a NUL byte"),
    "large": (b"#" * (MAX_SOURCE + 1), "is larger than"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_source_that_can_not_be_read_is_told_how_to_save_it(tmp_path: Path, name: str) -> None:
    raw, told = WRONG[name]
    (tmp_path / "trainer.py").write_bytes(raw)
    problem = source_problem(tmp_path, "trainer.py")
    assert problem is not None
    assert problem.startswith("trainer.py")
    assert told in problem
    assert "None" not in problem
    assert len(problem) < 450
    assert str(tmp_path) not in problem


RIGHT = {
    "plain": ADDING.encode(),
    "mark": b"\xef\xbb\xbf" + ADDING.encode(),
    "crlf": ADDING.replace("\n", "\r\n").encode(),
    "cookie": b"# coding: latin-1\nx = '\xe9'\n",
    "umlauts": "größe = 'naïve'\n".encode(),
    "no last line end": b"x = 1",
    "empty": b"",
    "one letter": b"x",
}


@pytest.mark.parametrize("name", RIGHT)
def test_every_text_that_python_reads_is_taken(tmp_path: Path, name: str) -> None:
    (tmp_path / "trainer.py").write_bytes(RIGHT[name])
    assert source_problem(tmp_path, "trainer.py") is None


def test_a_folder_is_no_source(tmp_path: Path) -> None:
    (tmp_path / "trainer.py").mkdir()
    assert source_problem(tmp_path, "trainer.py") == "trainer.py can't be read: Is a directory"


def app(tmp_path: Path, config: bytes) -> Path:
    for name, raw in app_files().items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(raw)
    (tmp_path / "app/config.json").write_bytes(config)
    return tmp_path


def test_a_config_may_begin_with_a_mark(tmp_path: Path) -> None:
    raw = b"\xef\xbb\xbf" + json.dumps({"GLOBAL_ROUNDS": 3}).encode()
    assert read_plan(app(tmp_path, raw), SLOTS).rounds == 3


def test_a_config_in_another_encoding_is_told_how_to_save_it(tmp_path: Path) -> None:
    raw = json.dumps({"GLOBAL_ROUNDS": 3}).encode("utf-16")
    with pytest.raises(BadApp, match=r"config\.json is saved as UTF-16: save it as UTF-8"):
        read_plan(app(tmp_path, raw), SLOTS)
