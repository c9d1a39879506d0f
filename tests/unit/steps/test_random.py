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
from service.domain.values import Resources
from service.steps.options import StepOptions
from tests.unit.steps.sim.harness import TRUSTS, Simulation
from tests.unit.steps.sim.invariants import InvariantChecker, check

KINDS = ("keyed", "named", "plain")
GPUS = 2  #: at each site


def _seeds() -> list[int]:
    first, _, last = os.environ.get("FL_SIM_SEEDS", "1-24").partition("-")
    return list(range(int(first), int(last or first) + 1))


class RandomRun:
    """One run; all chance comes from the seed."""

    def __init__(self, seed: int) -> None:
        kind = KINDS[seed % 3]
        options = StepOptions(submit_unknown_seconds=120, workers=4)
        limits = JobLimits(missing_grace_seconds=10, submit_unknown_seconds=120, collect_tries=100)
        site = {"gpus": GPUS}
        self.sim = Simulation(
            kind, 2, 3, options=options, limits=limits, seed=seed, net_options=site
        )
        self.rng = self.sim.rng
        self.watch = InvariantChecker(self.sim)
        for net in self.sim.adapters.values():
            net.share = 0.15
            net.revives = kind == "named" and self.rng.random() < 0.5
        self.sim.store.shaky = 0.03
        self.jobs: list[UUID] = []
        for _ in range(6):
            self._ask()

    def _ask(self) -> None:
        """A request for some of the GPUs at some of the sites."""
        trusts = tuple(self.rng.sample(TRUSTS, self.rng.randint(1, 3)))
        wanted = Resources(self.rng.randint(0, GPUS))
        least = self.rng.randint(1, len(trusts))
        more = {"trust_ids": trusts, "min_trusts": least, "resources": wanted}
        self.jobs.append(self.sim.ask(len(self.jobs), **more))

    async def fly(self) -> None:
        self.sim.start()
        self.sim.start()
        for _ in range(60):
            await asyncio.sleep(self.rng.uniform(0.2, 3.0))
            await self._mischief()
        await self._calm()

    async def _mischief(self) -> None:
        sim, rng = self.sim, self.rng
        chance = rng.random()
        net = rng.choice(list(sim.adapters.values()))
        job_id = rng.choice(self.jobs)
        if chance < 0.08:
            net.down = not net.down
        elif chance < 0.14:
            sim.kill(len(sim.supervisors) - 1)
            await asyncio.sleep(rng.uniform(0.0, 15.0))
            sim.start()
        elif chance < 0.2:
            number = rng.randrange(len(sim.supervisors))
            if sim.supervisors[number][1].closed:
                sim.wake(number)
            else:
                sim.kill(number)
        elif chance < 0.26 and len(self.jobs) < 14:
            self._ask()
        elif chance < 0.32:
            sim.stop_job(job_id)
        elif chance < 0.36 and net.alive():
            rng.choice(net.alive()).forgotten = True
        elif chance < 0.5 and sim.state(job_id) in (JobState.RUNNING, JobState.SUBMITTING):
            self._report(job_id)

    def _report(self, job_id: UUID) -> None:
        """A run of the job's attempt that really is there tells that it trains."""
        job = self.sim.job(job_id)
        for net in self.sim.adapters.values():
            for real in net.alive():
                tag = real.handle and (real.handle.job_id, real.handle.attempt)
                if tag == (job_id, job.attempt_number):
                    self.sim.report(job_id, ModelStatus.RUNNING, real.run_id)

    async def _calm(self) -> None:
        sim = self.sim
        sim.store.shaky = 0.0
        for net in sim.adapters.values():
            net.share, net.down = 0.0, False
        for number, (_, pause_switch, _, _) in enumerate(sim.supervisors):
            if pause_switch.closed and self.rng.random() < 0.5:
                sim.wake(number)
        sim.start()
        await sim.until(sim.all_over, 3_600)
        await sim.until(lambda: not check(sim), 600)
        await sim.end()


@pytest.mark.virtual_time
@pytest.mark.parametrize("seed", _seeds())
async def test_whatever_goes_wrong_all_invariants_hold(seed: int) -> None:
    campaign = RandomRun(seed)
    try:
        await campaign.fly()
    except AssertionError as exc:
        raise AssertionError(f"seed {seed}: {check(campaign.sim)}; {exc}") from exc
    assert campaign.watch.broken + check(campaign.sim) == [], f"seed {seed}"
