"""How fast the steps go, and how long they are patient. Numbers only; the settings become one of these."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class StepOptions:
    """Times in seconds.

    The first block mirrors the settings' `steps` section and `submit_unknown_seconds` their `limits`
    section; the rest has values that hold for every adapter we know.
    """

    workers: int = 32  #: jobs prepared and submitted at once by this process
    lease_seconds: float = 10.0
    renew_seconds: float = 3.0
    poll_seconds: float = 1.0  #: between two lists of a net with runs
    idle_poll_seconds: float = 5.0  #: between two polls of a net without runs, and at its clients
    claim_poll_seconds: float = 0.5
    sweep_seconds: float = 1.0
    fence_wait_seconds: float = 15.0  #: between two searches that together prove that nothing runs
    submit_unknown_seconds: float = 300.0  #: how long a lost answer is looked for

    retry_seconds: float = 0.25  #: first pause before a call is made again in place; doubles
    retry_most_seconds: float = 5.0
    call_tries: int = 4  #: of an upload, or of a submit that surely was not taken
    doubt_patience_seconds: float = 30.0  #: wait for a net whose last submission is open
    most_submissions: int = 14  #: of one attempt, before its outcome is given up as unknown
    reopen_most_seconds: float = 30.0  #: between a submission that led to nothing and the next one
    abort_look_seconds: float = 0.3  #: between two lists after an abort
    abort_watch_seconds: float = 5.0  #: how long one try at an abort watches the list
    orphan_abort_seconds: float = 2.0  #: first pause between two aborts of an orphan; doubles
    orphan_most_seconds: float = 30.0
    settle_seconds: float = 30.0  #: between two lists that make an aborted run's end final
    stray_seconds: float = 5.0  #: a run must be unknown for so long to be a stray
    down_poll_seconds: float = 2.0  #: between two polls of a net that does not answer
    registry_seconds: float = 1.0
    clean_seconds: float = 60.0
    #: For the last reports of an ended run: longer than the consumer group's session, which it mirrors.
    reports_seconds: float = 20.0
    failure_log_seconds: float = 20.0  #: how long a failed run's end waits for its log
    grace_seconds: float = 8.0  #: for work under way when the process is asked to end
