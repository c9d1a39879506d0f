"""A slow net takes its own time and nobody else's: hands are counted per net, and its lane is one of all."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import pytest

from service.adapters.lane import Lane
from service.domain.enums import FLBackend, JobState
from service.errors import Transient
from service.steps.options import StepOptions
from service.steps.runner import Tasks, lay_hand_down, take_hand_up
from tests.unit.steps.sim.harness import Simulation
from tests.unit.steps.sim.virtual_time import run

SLOW = 300.0


def _slow_down(adapter: object, call: str) -> None:
    setattr(adapter, call, _slow(getattr(adapter, call)))


def _slow(call: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    async def slowly(*args: Any, **kwargs: Any) -> Any:
        await asyncio.sleep(SLOW)
        return await call(*args, **kwargs)

    return slowly


def _two_kinds(slow: int, capacity: int, **more: Any) -> Simulation:
    """Nets whose backend a request can name: the first `slow` ones are embedded, the last is NVFLARE."""
    sim = Simulation(nets=slow + 1, capacity=capacity, **more)
    sim.change_net(f"net-{slow + 1}", backend=FLBackend.NVFLARE)
    return sim


@pytest.mark.virtual_time
@pytest.mark.parametrize(("slow", "capacity"), [(1, 100), (40, 2)])
@pytest.mark.parametrize("call", ["upload", "submit", "health", "runs"])
async def test_slow_nets_never_take_the_hands_of_a_fast_one(
    slow: int, capacity: int, call: str
) -> None:
    sim = _two_kinds(slow, capacity)
    for number in range(slow):
        adapter = sim.adapters[f"net-{number + 1}"]
        sim.later(_after(3, partial(_slow_down, adapter, call)))
    sim.start()
    await asyncio.sleep(4)
    for number in range(slow * capacity):
        sim.ask(number + 1, fl_backend=FLBackend.EMBEDDED)
    await asyncio.sleep(5)
    fast = sim.ask(100_000, fl_backend=FLBackend.NVFLARE)
    assert await sim.until_state(fast, JobState.RUNNING, 30) < 5
    await sim.end()


async def _after(seconds: float, act: Callable[[], None]) -> None:
    await asyncio.sleep(seconds)
    act()


@pytest.mark.virtual_time
async def test_aborts_that_a_slow_net_does_not_answer_hold_up_no_other_stop() -> None:
    sim = _two_kinds(1, 60, options=StepOptions(workers=8))
    slow = sim.adapters["net-1"]
    sim.start()
    stuck = [sim.ask(n + 1, fl_backend=FLBackend.EMBEDDED) for n in range(50)]
    fast = sim.ask(1000, fl_backend=FLBackend.NVFLARE)
    slow.train_seconds = sim.adapters["net-2"].train_seconds = 10_000
    await sim.until(lambda: all(sim.state(j) is JobState.RUNNING for j in [*stuck, fast]))
    vars(slow)["abort"] = _slow(slow.abort)
    for job_id in stuck:
        sim.stop_job(job_id)
    await asyncio.sleep(5)
    sim.stop_job(fast)
    assert await sim.until_state(fast, JobState.STOPPED, 60) < 5
    await sim.end()


@pytest.mark.virtual_time
async def test_results_that_come_slowly_leave_hands_for_those_of_another_net() -> None:
    sim = _two_kinds(1, 60, options=StepOptions(workers=8))
    slow = sim.adapters["net-1"]
    slow.seconds_of_results = SLOW
    sim.start()
    stuck = [sim.ask(n + 1, fl_backend=FLBackend.EMBEDDED) for n in range(50)]
    await sim.until(lambda: all(sim.state(j) is JobState.COLLECTING for j in stuck), 300)
    fast = sim.ask(1000, fl_backend=FLBackend.NVFLARE)
    await sim.until_state(fast, JobState.COLLECTING, 60)
    assert await sim.until_state(fast, JobState.COMPLETED, 60) < 5
    await sim.end()


def test_two_instances_never_upload_or_submit_to_one_net_at_once() -> None:
    async def story() -> None:
        sim = Simulation(capacity=30)
        inside, met = [0], [0]

        def counted(call: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
            async def calling(*args: Any, **kwargs: Any) -> Any:
                inside[0] += 1
                met[0] = max(met[0], inside[0])
                try:
                    return await call(*args, **kwargs)
                finally:
                    inside[0] -= 1

            return calling

        vars(sim.net)["upload"] = counted(sim.net.upload)
        vars(sim.net)["submit"] = counted(sim.net.submit)
        for _ in range(3):
            sim.start()
        jobs = [sim.ask(n) for n in range(30)]
        await sim.until(lambda: all(sim.state(j) is JobState.RUNNING for j in jobs))
        assert met[0] == 1
        await sim.end()

    run(story())


@pytest.mark.virtual_time
async def test_a_lane_whose_holder_died_is_free_again_soon() -> None:
    sim = Simulation(capacity=3)
    sim.start()
    sim.ask(1)
    await sim.until(lambda: sim.net.count("upload") == 1)
    sim.kill(0)
    sim.start()
    other = sim.ask(2)
    assert await sim.until_state(other, JobState.RUNNING, 120) < 30
    await sim.end()


# --- the lane by itself --------------------------------------------------------------------------


class _Leases:
    """Named leases by the loop's clock."""

    def __init__(self) -> None:
        self.held: dict[str, tuple[str, float]] = {}
        self.away = False

    def of(self, holder: str) -> Callable[[str, float], Awaitable[bool]]:
        async def lease(name: str, seconds: float) -> bool:
            await asyncio.sleep(0.001)
            if self.away:
                raise Transient("the database is unavailable")
            now = asyncio.get_running_loop().time()
            owner, until = self.held.get(name, (holder, now))
            if owner != holder and until > now:
                return False
            self.held[name] = (holder, now + seconds)
            return True

        return lease


@pytest.mark.virtual_time
async def test_a_turn_is_renewed_while_it_lasts_and_given_back_at_its_end() -> None:
    leases = _Leases()
    a, b = Lane("n", leases.of("a")), Lane("n", leases.of("b"))
    loop = asyncio.get_running_loop()
    async with a.turn():
        entering = asyncio.create_task(b.turn().__aenter__())
        await asyncio.sleep(100)
        assert not entering.done()
    left = loop.time()
    await entering
    assert loop.time() - left < 2


@pytest.mark.virtual_time
async def test_a_turn_within_a_turn_is_entered_at_once() -> None:
    lane = Lane("n", _Leases().of("a"))
    async with lane.turn(), lane.turn():
        pass
    async with asyncio.timeout(1), lane.turn():
        pass


@pytest.mark.virtual_time
async def test_a_turn_that_can_not_be_asked_for_is_transient() -> None:
    leases = _Leases()
    leases.away = True
    lane = Lane("n", leases.of("a"))
    with pytest.raises(Transient):
        async with lane.turn():
            raise AssertionError("entered")
    leases.away = False
    async with lane.turn():
        leases.away = True  # neither the renewal nor the end is an error of the work


@pytest.mark.virtual_time
async def test_a_hand_laid_down_is_another_s_and_taken_up_again_when_one_is_free() -> None:
    tasks, log, release = Tasks("x", 1), list[str](), asyncio.Event()

    async def waits() -> None:
        lay_hand_down()
        lay_hand_down()
        await release.wait()
        await take_hand_up()
        log.append("again")

    async def works() -> None:
        log.append("works")
        release.set()
        await asyncio.sleep(1)
        log.append("done")

    tasks.start(waits(), net="slow")
    assert (tasks.room, sorted(tasks.full)) == (0, ["slow"])
    await asyncio.sleep(0)
    assert tasks.room == 1
    tasks.start(works(), net="fast")
    await asyncio.sleep(3)
    assert log == ["works", "done", "again"]
    assert (len(tasks), sorted(tasks.full)) == (0, [])
    assert tasks.room == 1
