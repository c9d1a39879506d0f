"""The first phase: is a request a job, may it queue, and what it waits for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

from service.domain import commands as c
from service.domain import events as e
from service.domain.decision import Decision, applied, ignored, refused
from service.domain.eligibility import (
    describe_waiting_for,
    eligible_nets,
    ineligibility,
    runnable,
    served_nets,
    serving,
    why_waiting,
)
from service.domain.enums import JobState, ReasonCode, WaitingCode
from service.domain.facts import Facts
from service.domain.job import Job
from service.domain.net_index import NetIndex, net_index
from service.domain.registry import Net
from service.domain.run_settings import AGGREGATION_WEIGHTS, Weights
from service.domain.values import PartialRequest, Problem, Reason, Rejection, Request

#: Most errors that one rejection lists.
_MOST = 100
#: Nets that one rejection gives a reason for, and the length of the text with them.
_MOST_NETS: Final = 10
_MOST_CHARACTERS: Final = 1_000
_SAME = ignored("same_request", "this job_id with this content is known")


def request_training(job: Job | None, command: c.RequestTraining, facts: Facts) -> Decision:
    """A valid request: queue it, reject it with every reason, or answer a repeated job id."""
    request = command.request
    known = facts.retired.get(request.job_id) if job is None else job.request.content_hash
    if known is not None:
        return _again(job, request.content_hash, known)
    nets = eligible_nets(request, facts)
    problems = _problems(request, nets, facts)
    if problems:
        return applied(_rejected(request, problems, facts))
    early = request.not_before is not None and request.not_before > facts.now
    event = e.Queued(
        at=facts.now,
        request=request,
        waiting_for=why_waiting(request, nets, facts),
        warnings=_warnings(request, nets, facts),
        eligible=not early,
        due_at=request.not_before if early else request.deadline,
    )
    return applied(event)


def _again(job: Job | None, content: bytes, known: bytes) -> Decision:
    return _SAME if content == known else refused(_conflict(job))


def _conflict(job: Job | None) -> Reason:
    hint = " A rejected job keeps its job_id: send the corrected request under a new one."
    rejected = job is not None and job.state is JobState.REJECTED
    message = "this job_id was used for another request; choose a new job_id."
    return Reason(ReasonCode.DUPLICATE_CONFLICT, message + (hint if rejected else ""))


def reject_request(job: Job | None, command: c.RejectRequest, facts: Facts) -> Decision:
    """A request that broke the contract: rejected when its job id is new, else only answered.

    What the registry says of its valid parts is listed too, so that one correction is enough.
    """
    known = facts.retired.get(command.job_id) if job is None else job.request.content_hash
    if known == command.content_hash:
        return _SAME
    broken = len(command.errors)
    problems = _problems(command.partial, [], facts)
    if known is not None:
        taken = _conflict(job)
        problems.insert(0, Problem(("job_id",), taken.message, taken.code))
    errors = _merged(command.errors, problems)[:_MOST]
    more = f" and is wrong in {len(errors) - broken} more" if len(errors) > broken else ""
    reason = Reason(
        ReasonCode.INVALID_REQUEST,
        f"the request breaks its contract in {broken} place(s){more}; "
        "correct them and send it under a new job_id",
        errors,
    )
    if known is not None:
        return refused(reason)
    rejection = Rejection(
        command.job_id,
        command.model_id,
        command.project_id,
        command.content_hash,
        command.requested_by,
    )
    return applied(e.Rejected(at=facts.now, rejection=rejection, reason=reason))


def _rejected(request: Request, problems: list[Problem], facts: Facts) -> e.Rejected:
    rejection = Rejection(
        request.job_id,
        request.model_id,
        request.project_id,
        request.content_hash,
        request.requested_by,
    )
    message = "; ".join(p.msg for p in problems[:3])
    if len(problems) > 3:
        message += f"; and {len(problems) - 3} more"
    reason = Reason(problems[0].type, message, tuple(problems[:_MOST]))
    return e.Rejected(at=facts.now, rejection=rejection, reason=reason)


def _merged(listed: tuple[Problem, ...], more: list[Problem]) -> tuple[Problem, ...]:
    """The contract's problems, then those of `more` that say something else about a place."""
    kinds = {(p.loc, p.type) for p in listed}
    # What has no reason of its own is the contract's matter, which lists it there already.
    kinds |= {(p.loc, ReasonCode.INVALID_REQUEST) for p in listed}
    new = {(p.loc, p.type): p for p in more if (p.loc, p.type) not in kinds}
    return (*listed, *new.values())


def _problems(request: Request | PartialRequest, nets: list[Net], facts: Facts) -> list[Problem]:
    """Everything that stands against a request; `nets` are the candidates of a whole one."""
    registry = facts.registry
    problems: list[Problem] = []
    project_id = request.project_id
    project = None if project_id is None else registry.projects.get(project_id)
    if project_id is not None and project is None and registry.unlisted_projects != "allow":
        problems.append(
            Problem(
                ("project_id",),
                "the registry lists no such project; its operator must add it",
                ReasonCode.UNKNOWN_PROJECT,
            )
        )
    places: dict[UUID | None, int] = {}
    for place, trust in enumerate(request.trust_ids):
        places.setdefault(trust, place)
    unknown = [t for t in places if t not in registry.trusts]
    for trust in unknown[:_MOST]:
        if trust is not None:
            text = f"the registry lists no trust {trust}"
            problems.append(Problem(("trust_ids", places[trust]), text, ReasonCode.UNKNOWN_TRUST))
    if project is not None:
        refusing = [t for t in places if t not in project.approved_trusts and t in registry.trusts]
        for trust in refusing[:_MOST]:
            text = f"trust {trust} is not approved for this project"
            problems.append(
                Problem(("trust_ids", places[trust]), text, ReasonCode.TRUST_NOT_APPROVED)
            )
    if project is not None and request.priority > project.max_priority:
        text = f"this project may ask for priority {project.max_priority} at most"
        problems.append(Problem(("priority",), text, ReasonCode.PRIORITY_NOT_ALLOWED))
    if request.deadline is not None and request.deadline <= facts.now:
        problems.append(
            Problem(("deadline",), "the deadline has passed", ReasonCode.DEADLINE_EXCEEDED)
        )
    if not unknown and isinstance(request, Request):
        served = [] if nets else served_nets(request, facts)
        return problems + _net_problems(request, nets, served, facts)
    part, whole = _known_part(request, facts), bool(request.trust_ids) and not unknown
    served = serving(part, facts, whole)
    nets = runnable(part.job_type, served, facts)
    return problems + _net_problems(part, nets, served, facts, whole)


def _known_part(request: Request | PartialRequest, facts: Facts) -> PartialRequest:
    """The request with the trusts that the registry lists, and without the others' weights."""
    known = facts.registry.trusts
    others = {str(t) for t in request.trust_ids if t not in known}
    weights = {key: w for key, w in _weights(request).items() if key.lower() not in others}
    return PartialRequest(
        trust_ids=tuple(t for t in dict.fromkeys(request.trust_ids) if t in known),
        fl_backend=request.fl_backend,
        job_type=request.job_type,
        config={AGGREGATION_WEIGHTS: weights},
        resources=request.resources,
    )


def _net_problems(
    request: Request | PartialRequest,
    nets: Sequence[Net],
    served: Sequence[Net],
    facts: Facts,
    whole: bool = True,
) -> list[Problem]:
    """`nets` may run the request, `served` is what the registry allows, where there are no such nets.
    `whole`: are the request's trusts all that it means, or only those that are known?"""
    weights = _weights(request)
    index = net_index(facts.registry)
    candidates = nets or [net for net in served if facts.has_layout(net.backend)]
    if candidates:
        problems = [] if nets else _job_type_problems(request, candidates, facts)
        if weights:
            mask = index.mask(candidates)
            odd = _odd_weights(weights, mask, index)
            problems += odd if odd or not whole else _zero_weights(weights, request, mask, index)
        return problems
    text = "no net can ever serve this request: " + (
        _reasons(request, facts, whole) or "none exists"
    )
    problems = [Problem(("trust_ids",), text[:_MOST_CHARACTERS], ReasonCode.NO_SUCH_NET)]
    # Judged by what there is, so that the next try does not meet what this one hid.
    if index.nets:
        problems += _job_type_problems(request, index.nets, facts)
        problems += _odd_weights(weights, index.every, index)
    return problems


def _reasons(request: Request | PartialRequest, facts: Facts, whole: bool) -> str:
    """Why the first nets by name can't serve the request: as many as a text has room for."""
    reasons: list[str] = []
    room = _MOST_CHARACTERS
    for net in net_index(facts.registry).nets[:_MOST_NETS]:
        reason = ineligibility(net, request, facts.nets.get(net.name), whole)
        if reason is None:
            reason = f"runs {net.backend}, for which this service has no bundle layout"
        reasons.append(f"{net.name} {reason}")
        room -= len(reasons[-1])
        if room <= 0:
            break
    return "; ".join(reasons)


def _job_type_problems(
    request: Request | PartialRequest, nets: Sequence[Net], facts: Facts
) -> list[Problem]:
    if request.job_type is None:
        return []
    backends = {net.backend for net in nets} if request.fl_backend is None else {request.fl_backend}
    manifests = [facts.job_types.get(backend) for backend in backends]
    if any(manifest is None or request.job_type in manifest for manifest in manifests):
        return []
    valid = sorted({name for manifest in manifests if manifest is not None for name in manifest})
    text = f"unknown job type; valid here: {', '.join(valid) or 'none'}"
    return [Problem(("job_type",), text, ReasonCode.UNKNOWN_JOB_TYPE)]


def _weights(request: Request | PartialRequest) -> Mapping[str, Any]:
    weights = request.config.get(AGGREGATION_WEIGHTS)
    return weights if weights and isinstance(weights, Mapping) else {}


def _odd_weights(weights: Mapping[str, Any], nets: int, index: NetIndex) -> list[Problem]:
    """`nets`: those that could serve the request, as a mask."""
    return [
        Problem(
            ("config", AGGREGATION_WEIGHTS, key),
            "is neither a trust id nor a slot name of a net that could serve this request",
            ReasonCode.INVALID_REQUEST,
        )
        for key in weights
        if key.lower() not in index.trust_texts and not index.knows_client(key, nets)
    ][:_MOST]


def _zero_weights(
    weights: Mapping[str, Any], request: Request | PartialRequest, nets: int, index: NetIndex
) -> list[Problem]:
    trusts = [t for t in request.trust_ids if t is not None]
    if all(weights.values()) or any(_weights_on(weights, trusts, nets, index)):
        return []
    text = "every participant's weight is 0; give one of them more"
    return [Problem(("config", AGGREGATION_WEIGHTS), text, ReasonCode.INVALID_REQUEST)]


def _weights_on(
    weights: Mapping[str, Any], trusts: Iterable[UUID], nets: int, index: NetIndex
) -> Iterator[float]:
    """The weight of each trust under each name that it has on these nets."""
    known = Weights(weights)
    for trust in trusts:
        slots = index.slots_of.get(trust, {})
        named = [slot for slot in weights if slots.get(slot, 0) & nets]
        if len(named) < len(slots):
            yield known.of(trust, None)
        yield from (known.of(trust, slot) for slot in named)


def _warnings(request: Request, nets: list[Net], facts: Facts) -> tuple[str, ...]:
    weights = _weights(request)
    if not weights:
        return ()
    index = net_index(facts.registry)
    mask, trusts = index.mask(nets), frozenset(request.trust_ids)
    texts = {str(t) for t in trusts}
    return tuple(
        f"config.{AGGREGATION_WEIGHTS}: {key} takes no part in this job"
        for key in weights
        if key.lower() not in texts
        and not index.names_one(key, trusts, mask)
        and not index.names_one(key.lower(), trusts, mask)
    )[:100]


def report_waiting(job: Job | None, command: c.ReportWaiting, facts: Facts) -> Decision:
    """Tell why a queued job waits, and that nothing but its turn is missing any more, once per change."""
    if job is None or job.state is not JobState.QUEUED:
        return ignored("not_queued")
    if command.code == job.waiting:
        return ignored("nothing_new")
    if (command.code == WaitingCode.NOT_BEFORE) is job.eligible:
        return ignored("too_late", "its time has come, or it waits for another one now")
    text = describe_delay(job) or describe_waiting_for(command.code, job.accepted_request, facts)
    return applied(
        e.WaitingChanged(at=facts.now, code=command.code, message=text, position=command.position)
    )


def describe_delay(job: Job) -> str | None:
    """What a job waits for that waits for a time; None where none is set."""
    if job.eligible:
        return None
    asked, again = job.accepted_request.not_before, job.next_try_at
    if again is not None and (asked is None or again >= asked):
        return f"its next try may start at {_moment(again)}"
    return None if asked is None else f"it may start at {_moment(asked)}"


def _moment(at: datetime) -> str:
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
