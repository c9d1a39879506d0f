"""Random faults, many seeds: adapters that lose answers and forget runs, a database that fails in COMMIT,
processes killed and stopped past their leases, stops at any time. Then the faults stop, and all must end.

A failure prints its seed; `FL_SIM_SEEDS=17 pytest ...` replays that one, `FL_SIM_SEEDS=1-500` runs more.
"""

from __future__ import annotations

import asyncio
import os
from uuid import UUID

import pytest

from service.domain.enums import JobState, ModelStatus
from service.domain.facts import JobLimits
from service.steps.options import StepOptions
from tests.unit.sim.invariants import Watch, check
from tests.unit.sim.virtual_time import run
from tests.unit.sim.world import World

KINDS = ("keyed", "named", "plain")


def _seeds() -> list[int]:
    first, _, last = os.environ.get("FL_SIM_SEEDS", "1-24").partition("-")
    return list(range(int(first), int(last or first) + 1))


class Campaign:
    """One run; all chance comes from the seed."""

    def __init__(self, seed: int) -> None:
        kind = KINDS[seed % 3]
        options = StepOptions(submit_unknown_seconds=120, workers=4)
        limits = JobLimits(missing_grace_seconds=10, submit_unknown_seconds=120, collect_tries=100)
        self.world = World(kind, 2, 2, options=options, limits=limits, seed=seed)
        self.rng = self.world.rng
        self.watch = Watch(self.world)
        for net in self.world.adapters.values():
            net.share = 0.15
            net.revives = kind == "named" and self.rng.random() < 0.5
        self.world.store.shaky = 0.03
        self.jobs = [self.world.ask(n) for n in range(6)]

    async def fly(self) -> None:
        self.world.start()
        self.world.start()
        for _ in range(60):
            await asyncio.sleep(self.rng.uniform(0.2, 3.0))
            await self._mischief()
        await self._calm()

    async def _mischief(self) -> None:
        world, rng = self.world, self.rng
        chance = rng.random()
        net = rng.choice(list(world.adapters.values()))
        job_id = rng.choice(self.jobs)
        if chance < 0.08:
            net.down = not net.down
        elif chance < 0.14:
            world.kill(len(world.supervisors) - 1)
            await asyncio.sleep(rng.uniform(0.0, 15.0))
            world.start()
        elif chance < 0.2:
            number = rng.randrange(len(world.supervisors))
            if world.supervisors[number][1].closed:
                world.wake(number)
            else:
                world.kill(number)
        elif chance < 0.26 and len(self.jobs) < 14:
            self.jobs.append(world.ask(len(self.jobs)))
        elif chance < 0.32:
            world.stop_job(job_id)
        elif chance < 0.36 and net.alive():
            rng.choice(net.alive()).forgotten = True
        elif chance < 0.5 and world.state(job_id) in (JobState.RUNNING, JobState.SUBMITTING):
            self._report(job_id)

    def _report(self, job_id: UUID) -> None:
        """A run of the job's attempt that really is there tells that it trains."""
        job = self.world.job(job_id)
        for net in self.world.adapters.values():
            for real in net.alive():
                tag = real.handle and (real.handle.job_id, real.handle.attempt)
                if tag == (job_id, job.attempt_number):
                    self.world.report(job_id, ModelStatus.RUNNING, real.run_id)

    async def _calm(self) -> None:
        world = self.world
        world.store.shaky = 0.0
        for net in world.adapters.values():
            net.share, net.down = 0.0, False
        for number, (_, gate, _, _) in enumerate(world.supervisors):
            if gate.closed and self.rng.random() < 0.5:
                world.wake(number)
        world.start()
        await world.until(world.all_over, 3_600)
        await world.until(lambda: not check(world), 600)
        await world.end()


@pytest.mark.parametrize("seed", _seeds())
def test_whatever_goes_wrong_all_invariants_hold(seed: int) -> None:
    async def story() -> None:
        campaign = Campaign(seed)
        try:
            await campaign.fly()
        except AssertionError as exc:
            raise AssertionError(f"seed {seed}: {check(campaign.world)}; {exc}") from exc
        assert campaign.watch.broken + check(campaign.world) == [], f"seed {seed}"

    run(story())
