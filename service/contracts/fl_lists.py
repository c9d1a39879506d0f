"""Reading an adapter's lists entry by entry: one bad entry never costs the others.

Adapters are upgraded on their own, and old ones return native words or numbers as ids. Promise: a
list that is a list is always read; an entry without a usable id or name is left out and logged; a
status that is not one of FLIP's five becomes None ("unknown") and is kept as it was spelled;
free text is bounded. Broken when the answer is not a list at all: then `Invalid` is raised.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import structlog
from pydantic import ValidationError

from service.contracts.fl import IClientStatus, IJobMetaData
from service.contracts.wire.problems import storable
from service.domain.enums import FLJobStatus
from service.errors import Invalid

_log = structlog.get_logger(__name__)

#: Longest diagnostic text of a run that is kept, in characters.
MAX_DETAILS: Final = 500
#: Longest id, name or status that is taken from an adapter, in characters.
MAX_WORD: Final = 256

_STATUS_BY_WORD: Final = {status.value: status for status in FLJobStatus}
_NOTHING: Final = frozenset({"", "n/a", "none", "null"})


@dataclass(frozen=True, slots=True)
class ListedRun:
    """One run of `GET /list_jobs`.

    `job_id` is the backend's id, `status` None when `word` (as the adapter spelled it) is unknown;
    `status_details` is diagnostic text only, at most 500 characters on one line.
    """

    job_id: str
    status: FLJobStatus | None
    word: str
    status_details: str | None = None


def read_job_list(answer: object) -> list[ListedRun]:
    """The runs of a `GET /list_jobs` answer (parsed JSON), in the adapter's order.

    Raises:
        Invalid: the answer is not a list.
    """
    runs: list[ListedRun] = []
    for entry in _entries(answer, "list_jobs"):
        job_id = _id(entry.get("job_id"))
        if job_id is None:
            _log.warning("listed_run_without_id", fields=sorted(map(str, entry))[:20])
            continue
        word = entry.get("status")
        word = word[:MAX_WORD] if isinstance(word, str) else ""
        status = _STATUS_BY_WORD.get(word.strip().upper())
        if status is None:
            _log.warning("listed_run_status_unknown", run_id=job_id, status=word)
        else:
            job_id = IJobMetaData(job_id=job_id, status=status).job_id
        runs.append(ListedRun(job_id, status, word, details(entry.get("status_details"))))
    return runs


def read_client_list(answer: object) -> list[IClientStatus]:
    """The clients of a `GET /check_client_status` answer (parsed JSON), in the adapter's order.

    Raises:
        Invalid: the answer is not a list.
    """
    clients: list[IClientStatus] = []
    for entry in _entries(answer, "check_client_status"):
        try:
            client = IClientStatus.model_validate(entry)
        except ValidationError as exc:
            _log.warning("listed_client_unreadable", fields=_failed_fields(exc))
            continue
        client.name, client.status = client.name[:MAX_WORD], client.status[:MAX_WORD]
        clients.append(client)
    return clients


def details(text: object) -> str | None:
    """A run's diagnostic text on one line, at most 500 characters; None when it says nothing."""
    if not isinstance(text, str):
        return None
    line = " ".join(storable(text).split())
    return None if line.lower() in _NOTHING else line[:MAX_DETAILS]


def _entries(answer: object, call: str) -> list[dict[object, object]]:
    if not isinstance(answer, list):
        raise Invalid(f"the adapter's answer to {call} is not a list but {type(answer).__name__}")
    return [entry for entry in answer if isinstance(entry, dict)]


def _id(value: object) -> str | None:
    """A backend's id as text; some adapters give numbers."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if isinstance(value, str) and 0 < len(value.strip()) <= MAX_WORD and value == storable(value):
        return value.strip()
    return None


def _failed_fields(exc: ValidationError) -> list[str]:
    errors = exc.errors(include_url=False, include_context=False, include_input=False)
    return [".".join(map(str, error["loc"])) for error in errors[:20]]
