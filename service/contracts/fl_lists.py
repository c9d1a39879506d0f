"""Reading an adapter's lists entry by entry: one bad entry never costs the others.

Adapters are upgraded on their own, and old ones return native words, numbers as ids, or a run twice. Promise:
a list that is a list is always read; native words of Flower and NVFLARE are mapped to FLIP's five in any
case and spelling; a word that is none of them becomes None ("unknown") and is kept as it was spelled; an
entry without a usable id or name is left out and counted, so that whoever concludes from a run's absence
knows that it may have been in there; a run stands in the result once. Free text is bounded. Broken when the
answer is not a list at all: then `Invalid` is raised.
"""

from __future__ import annotations

import re
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

#: FLIP's words, and those of the runtimes and of older adapters, in capitals, parts joined by one `_`.
_STATUS_BY_WORD: Final = {
    word: status
    for status, words in {
        FLJobStatus.PENDING: "PENDING SUBMITTED APPROVED DISPATCHED STARTING QUEUED CREATED"
        " SCHEDULED ACCEPTED WAITING INITIATED",
        FLJobStatus.RUNNING: "RUNNING STARTED IN_PROGRESS ACTIVE TRAINING TRAINING_STARTED STOPPING ABORTING",
        FLJobStatus.FINISHED: "FINISHED COMPLETED COMPLETE SUCCEEDED SUCCESS DONE FINISHED_COMPLETED"
        " FINISHED_OK FINISHED_SUCCESS FINISHED_SUCCEEDED",
        FLJobStatus.STOPPED: "STOPPED ABORTED CANCELLED CANCELED KILLED FINISHED_STOPPED FINISHED_ABORTED"
        " FINISHED_CANCELLED FINISHED_CANCELED",
        FLJobStatus.FAILED: "FAILED FAILURE ERROR EXCEPTION CRASHED EXECUTION_EXCEPTION ABNORMAL ABANDONED"
        " FAILED_TO_RUN CAN_NOT_SCHEDULE",
    }.items()
    for word in words.split()
}
#: `FINISHED:<how>`: over, and only the words above mean that it ended well or was stopped.
_OVER: Final = "FINISHED_"
#: How far a run has come. Of two entries for one run the one further on is the newer: none goes back. Of two
#: ends the worse counts: a run is complete only when nothing says otherwise.
_PROGRESS: Final[dict[FLJobStatus | None, int]] = {
    None: 0,
    FLJobStatus.PENDING: 1,
    FLJobStatus.RUNNING: 2,
    FLJobStatus.FINISHED: 3,
    FLJobStatus.STOPPED: 4,
    FLJobStatus.FAILED: 5,
}
_ENUM: Final = re.compile(r"^\s*(?:\w+\s*\.|\w*(?:STATUS|STATE)\s*[:=])\s*")
_BREAKS: Final = re.compile(r"[^A-Z0-9]+")
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


@dataclass(frozen=True, slots=True)
class JobList:
    """A `GET /list_jobs` answer: its runs in the adapter's order, of how many entries, and how many of those
    named none."""

    runs: list[ListedRun]
    entries: int = 0
    unreadable: int = 0


def read_jobs(answer: object) -> JobList:
    """The runs of a `GET /list_jobs` answer (parsed JSON).

    Raises:
        Invalid: the answer is not a list.
    """
    entries = _entries(answer, "list_jobs")
    runs: dict[str, ListedRun] = {}
    unreadable = 0
    for entry in entries:
        run = _run(entry) if isinstance(entry, dict) else None
        if run is None:
            unreadable += 1
            continue
        before = runs.setdefault(run.job_id, run)
        if _PROGRESS[run.status] > _PROGRESS[before.status]:
            runs[run.job_id] = run
    return JobList(list(runs.values()), len(entries), unreadable)


def read_job_list(answer: object) -> list[ListedRun]:
    """As `read_jobs`, for whoever concludes nothing from a run's absence."""
    return read_jobs(answer).runs


def _run(entry: dict[object, object]) -> ListedRun | None:
    job_id = _id(entry.get("job_id"))
    if job_id is None:
        return None
    word = _word(entry)
    status = status_of(word)
    if status is not None:
        job_id = IJobMetaData(job_id=job_id, status=status).job_id
    told = details(entry.get("status_details"))
    if told is None and status is not None and word.strip().upper() != status:
        told = details(word)  # a native word says more than ours
    return ListedRun(job_id, status, word, told)


def _word(entry: dict[object, object]) -> str:
    """The status as it was spelled; a sub-status in a field of its own comes after a colon."""
    nested = entry.get("status")
    if isinstance(nested, dict):
        entry = nested
    word, sub = entry.get("status"), entry.get("sub_status")
    if not isinstance(word, str):
        return ""
    if isinstance(sub, str) and sub.strip():
        word = f"{word}:{sub}"
    return storable(word)[:MAX_WORD]


def status_of(word: str) -> FLJobStatus | None:
    """FLIP's status for an adapter's word in any case, with spaces, separators or an enum's name before it
    (`finished:failed`, `FINISHED:ABORTED`, `RunStatus.RUNNING`); None for one that nobody knows."""
    word = _BREAKS.sub("_", _ENUM.sub("", word.upper())).strip("_")
    if word not in _STATUS_BY_WORD and word.startswith(_OVER):
        return FLJobStatus.FAILED
    return _STATUS_BY_WORD.get(word)


def read_client_list(answer: object) -> list[IClientStatus]:
    """The clients of a `GET /check_client_status` answer (parsed JSON), in the adapter's order.

    Raises:
        Invalid: the answer is not a list.
    """
    clients: list[IClientStatus] = []
    for entry in _entries(answer, "check_client_status"):
        if not isinstance(entry, dict):
            continue
        try:
            client = IClientStatus.model_validate(_with_texts(entry))
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


def _entries(answer: object, call: str) -> list[object]:
    if not isinstance(answer, list):
        raise Invalid(f"the adapter's answer to {call} is not a list but {type(answer).__name__}")
    return answer


def _with_texts(entry: dict[object, object]) -> dict[object, object]:
    """A client's entry whose name may be a number, as ids may."""
    name = entry.get("name")
    return entry | {"name": str(name)} if type(name) is int else entry


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
