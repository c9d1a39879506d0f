"""What every reason and waiting code means, and what to do about it.

One place for the command line and the reference of codes. Promise: every code has an entry, in words that
stand without the message of the single case. Broken by a code without an entry.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from service.domain.enums import JobState, ReasonCode, WaitingCode
from service.domain.frozen import value


@value
class Advice:
    """`meaning`: what happened. `action`: what to do, and where it is not the producer's, by whom."""

    meaning: str
    action: str


REASONS: Final[Mapping[ReasonCode, Advice]] = {
    ReasonCode.INVALID_REQUEST: Advice(
        "The request can't be used: it breaks its contract, or asks for what the registry rules out.",
        "Correct every field that `errors` lists, then send it under a new `job_id`.",
    ),
    ReasonCode.DUPLICATE_CONFLICT: Advice(
        "The `job_id` was used before, with other content. The first job goes on.",
        "Send the request under a new `job_id`.",
    ),
    ReasonCode.UNKNOWN_JOB: Advice(
        "A stop named a job that did not come in time, or a model without an unfinished job.",
        "Check the id; `fl-jobs jobs list` shows the jobs there are. The job may be over already.",
    ),
    ReasonCode.UNKNOWN_JOB_TYPE: Advice(
        "The backend has no such job type.",
        "Use one of the types that the message lists, or ask the operator to add it.",
    ),
    ReasonCode.UNKNOWN_PROJECT: Advice(
        "The registry lists no such project.",
        "Check `project_id`. Operator: add the project to the registry file.",
    ),
    ReasonCode.UNKNOWN_TRUST: Advice(
        "The registry lists no such trust.",
        "Check `trust_ids`. Operator: add the trust to the registry file.",
    ),
    ReasonCode.TRUST_NOT_APPROVED: Advice(
        "The project has no approval for one of the trusts.",
        "Leave the trust out. Operator: add its approval to the project in the registry file.",
    ),
    ReasonCode.APPROVAL_REVOKED: Advice(
        "An approval that the job needs was taken back after it was accepted.",
        "Ask the operator why. A new job without the trust may run.",
    ),
    ReasonCode.PRIORITY_NOT_ALLOWED: Advice(
        "The project may not ask for a priority that high.",
        "Ask for at most the priority that the message names.",
    ),
    ReasonCode.NO_SUCH_NET: Advice(
        "No net can ever serve the request: members, backend, job type or GPUs do not fit.",
        "Change what the message names. `fl-jobs registry show` lists the nets and their members.",
    ),
    ReasonCode.MODEL_FILES_MISSING: Advice(
        "There are no files under the model's prefix, or one went away while it was read.",
        "Upload them, or name their prefix in `model_files.uri`; "
        "`fl-jobs submit --model-files DIR` uploads a folder.",
    ),
    ReasonCode.REQUIRED_FILE_MISSING: Advice(
        "A file that the job type needs is not among the model's files.",
        "Add the files that the message names, then send a new job.",
    ),
    ReasonCode.UNSAFE_PATH: Advice(
        "A file's name could leave its folder, is too long, or has characters that are not allowed.",
        "Rename the file: no `..`, no leading `/`, no backslash, no control character.",
    ),
    ReasonCode.FILE_COLLISION: Advice(
        "Two files of the bundle would have one name.",
        "Rename the model's files that the message names.",
    ),
    ReasonCode.BUNDLE_TOO_LARGE: Advice(
        "The model has more bytes or files than the service takes.",
        "Make it smaller. Operator: `FL_S3__MAX_BUNDLE_BYTES` and `FL_S3__MAX_BUNDLE_FILES`.",
    ),
    ReasonCode.DIGEST_MISMATCH: Advice(
        "A file changed while it was read, or is not the one whose SHA-256 the request gave.",
        "Upload the file again, or correct `model_files.sha256`.",
    ),
    ReasonCode.BAD_MODEL_CONFIG: Advice(
        "The model's `config.json` can't be used.",
        "Correct what the message names.",
    ),
    ReasonCode.ADAPTER_REJECTED: Advice(
        "The net's adapter refused the app.",
        "Read the message: it is the adapter's own. Most often the app itself is wrong.",
    ),
    ReasonCode.ADAPTER_UNAVAILABLE: Advice(
        "The net's adapter did not answer, or could not do what was asked.",
        "The service tries again. Operator: `fl-jobs nets status`, then `fl-jobs doctor`.",
    ),
    ReasonCode.CLIENTS_UNAVAILABLE: Advice(
        "FL clients of the job's trusts were not connected to the net.",
        "The service tries again. Operator: start the FL clients that the message names.",
    ),
    ReasonCode.MANIFEST_UNAVAILABLE: Advice(
        "The backend's list of job types can't be read.",
        "The service tries again. Operator: check `FL_ASSETS_DIR`; `fl-jobs doctor` names the file.",
    ),
    ReasonCode.SUBMIT_UNKNOWN: Advice(
        "The answer to a submit was lost, and nothing shows whether a run exists.",
        "Operator: look at the net. When no run of the job is left there, `fl-jobs nets release JOB`.",
    ),
    ReasonCode.BACKEND_FAILED: Advice(
        "The run failed on its backend.",
        "Read the message and the run's log. Most often it is an error of the trainer.",
    ),
    ReasonCode.BACKEND_LOST: Advice(
        "The backend no longer knows the run.",
        "The service tries again up to `max_attempts`. Operator: was the FL server restarted?",
    ),
    ReasonCode.RESULTS_UPLOAD_FAILED: Advice(
        "Training ended well, but its results could not be fetched or stored.",
        "Operator: mend the net or the object store, then `fl-jobs jobs collect JOB`.",
    ),
    ReasonCode.DEADLINE_EXCEEDED: Advice(
        "The request's deadline passed before the job ended.",
        "Send a new job with a later deadline, or with a higher priority.",
    ),
    ReasonCode.PENDING_EXCEEDED: Advice(
        "The backend took the run and did not start it in time.",
        "Operator: are the sites' FL clients connected and free? `fl-jobs nets status` shows them.",
    ),
    ReasonCode.RUNTIME_EXCEEDED: Advice(
        "The run took longer than it may.",
        "Ask for more time with `max_runtime_seconds`, or for fewer rounds.",
    ),
    ReasonCode.NO_PROGRESS: Advice(
        "The run showed no progress for longer than it may.",
        "Look at the run's log. A slow trainer needs a larger `max_stall_seconds`.",
    ),
    ReasonCode.STOPPED_BY_REQUEST: Advice(
        "Somebody asked for the stop.",
        "Nothing. `requested_by` says who it was.",
    ),
    ReasonCode.STOPPED_OUTSIDE: Advice(
        "The run was stopped on its backend, and not by this service.",
        "Ask whoever runs the net, then send a new job.",
    ),
    ReasonCode.INTERNAL_ERROR: Advice(
        "The service made a mistake with this job.",
        "Report it with the job's id and the service's log.",
    ),
}

WAITING: Final[Mapping[WaitingCode, Advice]] = {
    WaitingCode.CAPACITY: Advice(
        "Every net that could serve the job is busy, or still holds an earlier run of its model.",
        "Wait, or stop another job. Operator: add a net, or raise a net's `capacity`.",
    ),
    WaitingCode.TRUSTS: Advice(
        "Too few of the job's trusts are online, or their net does not answer.",
        "A lower `min_trusts` starts with fewer. Operator: `fl-jobs nets status` shows who is offline.",
    ),
    WaitingCode.GPUS: Advice(
        "The GPUs that the job asks for are taken.",
        "Wait, or ask for fewer.",
    ),
    WaitingCode.PROJECT_AT_LIMIT: Advice(
        "The project runs as many jobs as it may.",
        "Wait, or stop one of them. Operator: the project's `max_running_jobs`.",
    ),
    WaitingCode.NOT_BEFORE: Advice(
        "The start time that the request gave has not come, or the pause before another try is not over.",
        "Wait until `not_before`.",
    ),
    WaitingCode.NET_PAUSED: Advice(
        "The only nets that could serve the job now are paused.",
        "Operator: `fl-jobs nets resume NET`.",
    ),
    WaitingCode.HUB_PAUSED: Advice(
        "The whole service is paused.",
        "Operator: `fl-jobs nets resume --all`.",
    ),
    WaitingCode.NET_QUARANTINED: Advice(
        "A submission whose outcome nobody knows blocks the net.",
        "Operator: look at the net, then `fl-jobs nets release JOB` with the job that doctor names.",
    ),
    WaitingCode.MANIFEST_UNAVAILABLE: Advice(
        "The backend's list of job types can't be read.",
        "Operator: check `FL_ASSETS_DIR`; `fl-jobs doctor` names the file.",
    ),
}

_BY_REASON: Final[Mapping[str, Advice]] = {code.value: entry for code, entry in REASONS.items()}
_BY_WAIT: Final[Mapping[str, Advice]] = {code.value: entry for code, entry in WAITING.items()}


def job_advice(state: str, reason: str | None, waiting: str | None) -> Advice | None:
    """What fits a job as it is: that of its waiting code while it waits, else that of its reason.

    None where it has neither, and for a code of another version.
    """
    if state == JobState.QUEUED and waiting is not None:
        return _BY_WAIT.get(waiting)
    return None if reason is None else _BY_REASON.get(reason)
