"""`decide`: the table {command: rule}. The rules stand by phase in the files beside this one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from service.domain import claim, limits, observations, queue, reports, results, stop, submit
from service.domain import commands as c
from service.domain.decision import Decision
from service.domain.facts import Facts
from service.domain.job import Job

RULES: Final[dict[type[c.Command], Callable[[Job | None, Any, Facts], Decision]]] = {
    c.RequestTraining: queue.request_training,
    c.RejectRequest: queue.reject_request,
    c.ReportWaiting: queue.report_waiting,
    c.RequestStop: stop.publish_stop,
    c.ReportStatus: reports.report,
    c.ReportRound: reports.report,
    c.ReportMetrics: reports.report,
    c.ReportLog: reports.report,
    c.Claim: claim.claim,
    c.TakeLease: claim.take_lease,
    c.OpenSubmission: submit.open_submission,
    c.RecordRun: submit.record_run,
    c.ReleaseNet: submit.release_net,
    c.FailAttempt: submit.fail_attempt,
    c.ConfirmNoRun: submit.confirm_no_run,
    c.ReleaseReservation: submit.release_reservation,
    c.ObserveRun: observations.observe_run,
    c.ObserveRunMissing: observations.observe_run_missing,
    c.StoreResults: results.store_results,
    c.DeferStep: results.defer_step,
    c.Review: limits.review,
}


def decide(job: Job | None, command: c.Command, facts: Facts) -> Decision:
    """What follows from `command` for `job` (None: no such job). Pure; KeyError for an unknown command."""
    return RULES[type(command)](job, command, facts)
