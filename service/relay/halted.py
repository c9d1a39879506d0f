"""Where the relay stops and waits for an operator: the log and the database contradict each other, or the
broker will never take what comes next.

Going on could lose, double or reorder events, so nothing is guessed. Every stop says what was seen and the
way out: repair what the message names, or, where log and database differ, let the relay continue from the log
with `--accept-log`.
"""

from __future__ import annotations

from service.errors import Permanent

REMEDY = (
    "`fl-jobs doctor` explains. "
    "`fl-jobs run --role relay --accept-log` continues from what the log holds"
)


class RelayHalted(Permanent):
    """What only a person may settle. `code` names which."""

    code = "relay_stopped"

    def __init__(self, message: str, *, code: str, remedy: str = REMEDY) -> None:
        super().__init__(f"{message}. {remedy}", code=code)
