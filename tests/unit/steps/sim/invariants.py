"""What must hold after any run of the sim, whatever went wrong in it: I1, I2, I4, I6, I9, I10.

`InvariantChecker` watches while a run is made; `check` judges the written
history. Both say which job and which event.
"""

from __future__ import annotations

from collections import Counter

from service.domain import events as e
from service.domain.enums import RUN_OVER, ReservationState
from service.domain.evolve import is_published
from tests.unit.steps.sim.fake_net import FakeNet, RealRun
from tests.unit.steps.sim.harness import Simulation

_ENDS = (e.Rejected, e.Stopped, e.Completed, e.Failed)


class InvariantChecker:
    """Counts live runs whenever a net makes one: capacity, GPUs, and one live run per attempt."""

    def __init__(self, sim: Simulation) -> None:
        self.broken: list[str] = []
        self.most_gpus = 0
        self._sim = sim
        for net in sim.adapters.values():
            net.on_create = self._created

    def _created(self, net: FakeNet, run: RealRun) -> None:
        live = net.alive()
        if len(live) > net.net.capacity:
            runs = [r.run_id for r in live]
            self.broken.append(
                f"I9: {len(live)} live runs on {net.net.name} at {net.now()}: {runs}"
            )
        gpus = self._gpus(net, live)
        self.most_gpus = max(self.most_gpus, *gpus.values(), 0)
        if self.most_gpus > net.net.gpus:
            self.broken.append(f"I9: GPUs {dict(gpus)} on {net.net.name} at {net.now()}")
        if run.handle is None:
            return
        tag = (run.handle.job_id, run.handle.attempt)
        twins = [r for r in live if r.handle and (r.handle.job_id, r.handle.attempt) == tag]
        if len(twins) > 1:
            self.broken.append(f"I1: {[r.run_id for r in twins]} live for {tag} at {net.now()}")

    def _gpus(self, net: FakeNet, live: list[RealRun]) -> Counter[str]:
        """GPUs at work by slot."""
        taken: Counter[str] = Counter()
        for run in live:
            if run.handle is not None:
                wanted = self._sim.job(run.handle.job_id).accepted_request.resources.num_gpus
                taken.update(dict.fromkeys(net.uploads[run.handle.path_id], wanted))
        return taken


def check(sim: Simulation) -> list[str]:
    """Everything that is wrong with the history; empty when all holds."""
    broken = []
    for job_id, job in sim.store.jobs.items():
        events = [event for _, about, event in sim.store.log if about == job_id]
        published = [event for event in events if is_published(event)]
        ends = [event for event in published if isinstance(event, _ENDS)]
        if len(ends) != 1 or ends[0] is not published[-1]:
            broken.append(f"I2: {job_id} ended {[type(event).__name__ for event in ends]}")
        if len(published) != job.sequence:
            broken.append(f"I4: {job_id} has {len(published)} events up to {job.sequence}")
        stops = [n for n, event in enumerate(events) if isinstance(event, e.StopRequested)]
        after = events[stops[0] :] if stops else []
        if any(isinstance(event, (e.Started, e.SubmissionOpened)) for event in after):
            broken.append(f"I6: {job_id} was submitted after its stop")
        broken += [
            f"I9: {job_id} still holds a place on {a.net} ({a.reservation})"
            for a in job.attempts
            if a.reservation is not ReservationState.RELEASED
        ]
    return broken + _runs(sim)


def _runs(sim: Simulation) -> list[str]:
    broken = []
    for net in sim.adapters.values():
        tags = Counter(
            (r.handle.job_id, r.handle.attempt) for r in net.real if r.handle is not None
        )
        if net.kind == "keyed":
            broken += [f"I1: {tag} ran {n} times" for tag, n in tags.items() if n > 1]
        broken += [
            f"I10: {r.run_id} still lives"
            for r in net.alive()
            if r.status(net.now()) not in RUN_OVER
        ]
    return broken
