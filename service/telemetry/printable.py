"""Text that others wrote, made fit for a terminal: what would act there is shown as an escape (`\\x1b`)."""

from __future__ import annotations

import re
from typing import Final

#: Control characters (C0, DEL, C1), line separators, what turns the direction of text or can't be seen,
#: halves of surrogate pairs, interlinear marks, tags. Joiners stay: scripts and emoji need them.
_UNSAFE: Final = (
    "\x00-\x1f\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\ud800-\udfff\U000e0000-\U000e007f"
)
_IN_A_LINE: Final = re.compile(f"[{_UNSAFE}]")
IN_LINES: Final = re.compile(f"(?!\n)[{_UNSAFE}]")


def line(value: object) -> str:
    """A value as text that stays on its line, and does nothing there."""
    return _IN_A_LINE.sub(_shown, str(value))


def lines(text: str) -> str:
    """Text with its line ends, and nothing else that a terminal acts upon."""
    return IN_LINES.sub(_shown, text)


def _shown(found: re.Match[str]) -> str:
    character = found.group()
    if character in "\n\r\t":
        return {"\n": "\\n", "\r": "\\r", "\t": " "}[character]
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else _escaped(code)


def _escaped(code: int) -> str:
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
