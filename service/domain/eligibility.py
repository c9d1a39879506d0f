"""Which nets could serve a request, and what holds a queued one back at the moment."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Final
from uuid import UUID

from service.domain.enums import COUNTS_ONLY, WaitingCode
from service.domain.facts import Facts, Fits, JobTypes
from service.domain.group import Group
from service.domain.net_index import net_index
from service.domain.registry import Net, NetNow, Registry
from service.domain.values import PartialRequest, Request

#: From the obstacle that goes away soonest to the one that needs somebody's hand.
_NEAREST = (
    WaitingCode.CAPACITY,
    WaitingCode.GPUS,
    WaitingCode.TRUSTS,
    WaitingCode.NET_QUARANTINED,
    WaitingCode.NET_PAUSED,
    WaitingCode.MANIFEST_UNAVAILABLE,
)

#: Trusts that one text names; it tells how many more there are.
_MOST_NAMES: Final = 10

_SAYS = {
    WaitingCode.CAPACITY: "every net that could serve it is busy",
    WaitingCode.TRUSTS: "too few of its trusts are online, or their net does not answer",
    WaitingCode.GPUS: "the GPUs it asks for are taken",
    WaitingCode.PROJECT_AT_LIMIT: "its project runs as many jobs as it may",
    WaitingCode.NOT_BEFORE: "its start time has not come",
    WaitingCode.NET_PAUSED: "the net that could serve it is paused",
    WaitingCode.HUB_PAUSED: "the service is paused",
    WaitingCode.NET_QUARANTINED: "a submission without a known outcome blocks the net",
    WaitingCode.MANIFEST_UNAVAILABLE: "the list of job types can't be read",
}


def describe_waiting(code: str | None) -> str:
    """A waiting code in words; None means that only its turn is missing."""
    return "it starts when its turn comes" if code is None else _SAYS[WaitingCode(code)]


def selects(net: Net, now: NetNow | None) -> bool:
    """Can a job on this net be run with some of its members only? Before the net has answered for the
    first time nobody knows, and nothing is turned away for it."""
    if net.backend not in COUNTS_ONLY or net.selects_clients:
        return True
    return now is None or not now.has_answered or "selection" in now.extensions


def ineligibility(
    net: Net, request: Request | Group | PartialRequest, now: NetNow | None, whole: bool = True
) -> str | None:
    """Why this net can never serve the request, in words; None: it can.

    `whole`: are the request's trusts all that it means, or only those that are known?
    """
    if request.fl_backend is not None and net.backend != request.fl_backend:
        return f"runs {net.backend}, not {request.fl_backend}"
    absent = [t for t in request.trust_ids if t not in net.members]
    if absent:
        return f"has no member {_named(absent)}"
    return _lacking(net, request, now, whole)


def _lacking(
    net: Net, request: Request | Group | PartialRequest, now: NetNow | None, whole: bool
) -> str | None:
    """As `ineligibility`, for a net of the right backend that has all of the members."""
    if net.gpus < request.resources.num_gpus:
        return f"has {net.gpus} GPUs a site, {request.resources.num_gpus} are asked for"
    if net.gpu_memory_gib < request.resources.mem_per_gpu_gib:
        return (
            f"has {net.gpu_memory_gib} GiB a GPU, {request.resources.mem_per_gpu_gib} are asked for"
        )
    if whole and len(request.trust_ids) != len(net.members) and not selects(net, now):
        return "can't select clients, so a job must name all of its members"
    return None


def _named(trusts: list[UUID] | list[UUID | None]) -> str:
    names = ", ".join(_text(t) for t in trusts[:_MOST_NAMES])
    more = len(trusts) - _MOST_NAMES
    return f"{names} and {more} more" if more > 0 else names


@lru_cache(maxsize=65_536)
def _text(trust: UUID | None) -> str:
    return str(trust)


def eligible_nets(request: Request, facts: Facts) -> list[Net]:
    """The nets that could run the request, by name: those of the registry that have a bundle layout and the
    job type, as far as anybody knows. Worked out once for equal wants."""
    fits = _fits(request, facts)
    found = fits.by_type.get(request.job_type)
    if found is None:
        found = fits.by_type[request.job_type] = runnable(request.job_type, fits.served, facts)
    return found


def served_nets(request: Request, facts: Facts) -> list[Net]:
    """As `serving`, worked out once for equal wants."""
    return _fits(request, facts).served


def _fits(request: Request, facts: Facts) -> Fits:
    wants = (request.fl_backend, request.trust_ids, request.resources)
    found = facts.fits.get(wants)
    if found is None:
        found = facts.fits[wants] = Fits(serving(request, facts, whole=True))
    return found


def runnable(job_type: str | None, nets: Iterable[Net], facts: Facts) -> list[Net]:
    """Of these nets, those that may run the job type: not those of a backend without a layout, nor those
    whose manifest is there and lacks it. None: any, the model's files name it."""
    return [
        net
        for net in nets
        if facts.has_layout(net.backend)
        and (job_type is None or _may_have(facts.job_types.get(net.backend), job_type))
    ]


def _may_have(manifest: JobTypes, job_type: str) -> bool:
    return manifest is None or job_type in manifest


def short_of_gpus(net: Net, request: Request, now: NetNow) -> bool:
    """Are the GPUs that the request wants taken at one of its trusts that are online? Jobs without a
    trust in common don't compete."""
    wanted = request.resources.num_gpus
    return wanted > 0 and any(
        now.gpus_taken.get(trust, 0) + wanted > net.gpus
        for trust in request.trust_ids
        if trust in now.online
    )


def serving(part: Request | PartialRequest | Group, facts: Facts, whole: bool) -> list[Net]:
    """The nets, by name, that nothing in a request or its part rules out; `whole`: see `ineligibility`."""
    index = net_index(facts.registry)
    nets = index.listed(index.having(part.fl_backend, part.trust_ids))
    return [n for n in nets if _lacking(n, part, facts.nets.get(n.name), whole) is None]


def holds_model(net: Net, request: Request, facts: Facts) -> bool:
    """Would an upload replace an earlier run of the model that the net still works on, or its results?"""
    return net.path_id == "model" and request.model_id in facts.models_taken.get(net.name, ())


def manifest_missing(net: Net, request: Request, facts: Facts) -> bool:
    """Does nobody know now whether the net's backend has the job type that the request names?"""
    return request.job_type is not None and facts.job_types.get(net.backend) is None


def _obstacle(net: Net, request: Request, facts: Facts) -> WaitingCode | None:
    now = facts.nets.get(net.name)
    if now is None or not now.answering:
        return WaitingCode.NET_PAUSED if now is not None and now.paused else WaitingCode.TRUSTS
    if now.paused:
        return WaitingCode.NET_PAUSED
    if now.in_doubt:
        return WaitingCode.NET_QUARANTINED
    if manifest_missing(net, request, facts):
        return WaitingCode.MANIFEST_UNAVAILABLE
    if len(now.online.intersection(request.trust_ids)) < request.min_trusts:
        return WaitingCode.TRUSTS
    if now.taken >= net.capacity or holds_model(net, request, facts):
        return WaitingCode.CAPACITY
    return WaitingCode.GPUS if short_of_gpus(net, request, now) else None


def why_waiting(request: Request, nets: Iterable[Net], facts: Facts) -> WaitingCode | None:
    """The code of what holds the request back now; None when only its turn is missing."""
    if request.not_before is not None and request.not_before > facts.now:
        return WaitingCode.NOT_BEFORE
    if facts.hub_paused:
        return WaitingCode.HUB_PAUSED
    nets = list(nets)
    if nets and all(manifest_missing(net, request, facts) for net in nets):
        return WaitingCode.MANIFEST_UNAVAILABLE
    project = facts.registry.projects.get(request.project_id)
    limit = None if project is None else project.max_running_jobs
    if limit is not None and facts.project_running.get(request.project_id, 0) >= limit:
        return WaitingCode.PROJECT_AT_LIMIT
    obstacles = set()
    for net in nets:
        obstacle = _obstacle(net, request, facts)
        if obstacle is None:
            return None
        obstacles.add(obstacle)
    return next((code for code in _NEAREST if code in obstacles), WaitingCode.TRUSTS)


def describe_waiting_for(code: str | None, request: Request, facts: Facts) -> str:
    """As `describe_waiting`, naming the nets that are kept from it by an earlier run of its model."""
    nets = eligible_nets(request, facts)
    if not nets and code == WaitingCode.TRUSTS:
        return "no net can serve it any more; it waits for one to be registered"
    held = [
        net.name
        for net in nets
        if holds_model(net, request, facts)
        and _obstacle(net, request, facts) is WaitingCode.CAPACITY
    ]
    if code != WaitingCode.CAPACITY or not held:
        return describe_waiting(code)
    named = ", ".join(held[:5]) + (f" and {len(held) - 5} more" if len(held) > 5 else "")
    who = f"net {named} still holds" if len(held) == 1 else f"nets {named} still hold"
    text = f"{who} model {request.model_id}'s earlier run until its results are collected"
    return text if len(held) == len(nets) else f"{text}; no other net that could serve it is free"


def unapproved(request: Request, registry: Registry) -> list[UUID]:
    """The request's trusts that its project may not use (any more)."""
    return [t for t in request.trust_ids if not registry.approved(request.project_id, t)]
