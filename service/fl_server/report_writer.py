"""What a run publishes: the reports of `fl.job-status.v1`, built in one module.

Promise: a report's id is made of the job, the attempt, the run's id and the report's name, so the
same moment of the same run has the same id for ever, and runs of two nets that happen to be called
alike (Flower counts its runs) have different ones; a run's id is any text. Every text is bounded
and storable; a number that is not finite becomes null. A run that was submitted without a job id
tells nothing, since nobody could match it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID, uuid5

from service.contracts.inbound.reports import (
    LOG_REPORTED,
    METRICS_REPORTED,
    ROUND_REPORTED,
    STATUS_REPORTED,
)
from service.contracts.wire import strict_json
from service.domain.enums import ModelStatus, RoundEvent
from service.fl_server.report_outbox import ReportEvent

MAX_DETAIL: Final = 500
MAX_LOG: Final = 8_000
_MAX_LABEL: Final = 200
_METRICS_AT_ONCE: Final = 50
#: The namespace of report ids.
_REPORTS: Final = UUID("9c0e7a53-6a0b-5c39-8f5e-3c1a4d2b7e60")

#: Takes a report and whether it must be kept even when the queue is full.
Enqueue = Callable[[ReportEvent, bool], None]


@dataclass(frozen=True, slots=True)
class ReportWriter:
    """Reports of one run. Every method is quick, keeps the report on disk and never raises for it."""

    run_id: str
    path_id: UUID
    job_id: UUID | None
    attempt: int | None
    enqueue: Enqueue | None

    def status(self, status: ModelStatus, detail: str | None = None) -> None:
        """The run is now INITIATED, PREPARED, RUNNING, or ended as ERROR or STOPPED."""
        self._write(
            f"status:{status.value}",
            STATUS_REPORTED,
            {"status": status.value, "detail": _cut(detail)},
            True,
        )

    def round(
        self,
        event: RoundEvent,
        global_round: int,
        *,
        slot: str | None = None,
        details: Mapping[str, Any] | None = None,
        name: str = "",
    ) -> None:
        """Something happened in a round (counted from 1; 0 before the first). `name` tells apart
        several events of one kind, round and slot."""
        self._write(
            f"round:{global_round}:{event.value}:{slot or ''}:{name}",
            ROUND_REPORTED,
            {
                "event_type": event.value,
                "global_round": global_round or None,
                "fl_client_name": slot,
                "details": None if details is None else finite(details),
            },
        )

    def metrics(
        self, values: Mapping[str, float | None], global_round: int, slot: str | None = None
    ) -> None:
        """Metrics of a round, of one site or, without a slot, of all together."""
        entries = [
            {
                "label": storable(label)[:_MAX_LABEL],
                "result": finite(value),
                "global_round": global_round,
                "fl_client_name": slot,
            }
            for label, value in values.items()
        ]
        for first in range(0, len(entries), _METRICS_AT_ONCE):
            self._write(
                f"metrics:{global_round}:{slot or ''}:{first}",
                METRICS_REPORTED,
                {"metrics": entries[first : first + _METRICS_AT_ONCE], "fl_client_name": slot},
            )

    def log(self, name: str, text: str, *, slot: str | None = None, success: bool = False) -> None:
        """Text of a run's log; of a longer one the end, where the cause stands."""
        text = storable(text)[-MAX_LOG:]
        self._write(
            f"log:{name}", LOG_REPORTED, {"log": text, "success": success, "fl_client_name": slot}
        )

    def _write(self, name: str, kind: str, body: Mapping[str, Any], required: bool = False) -> None:
        if self.enqueue is None or self.job_id is None or self.attempt is None:
            return
        data = {
            "job_id": str(self.job_id),
            "attempt": self.attempt,
            "fl_backend_job_id": storable(self.run_id)[:_MAX_LABEL],
            "path_id": str(self.path_id),
            **{field: value for field, value in body.items() if value is not None},
        }
        report = ReportEvent(
            id=str(uuid5(_REPORTS, json.dumps([data["job_id"], self.attempt, self.run_id, name]))),
            type=kind,
            subject=str(self.job_id),
            time=datetime.now(UTC),
            data=strict_json.dump(data),
        )
        self.enqueue(report, required)


def finite(value: Any) -> Any:
    """`value` with every number that is not finite replaced by None, deeply."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {storable(str(key)): finite(member) for key, member in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [finite(member) for member in value]
    return storable(value) if isinstance(value, str) else value


def storable(text: str) -> str:
    """Text without NUL and lone surrogates, which neither a broker's reader nor a database takes."""
    return text.replace("\0", "").encode("utf-8", "replace").decode("utf-8")


def _cut(text: str | None) -> str | None:
    return None if text is None else storable(text)[:MAX_DETAIL]
