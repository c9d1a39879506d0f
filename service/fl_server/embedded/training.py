"""One run from its first process to its results: the rounds of federated averaging.

Promise: every round is reported in order (started, each site's result or failure, metrics,
aggregated); a failed site ends the run unless IGNORE_RESULT_ERROR says to continue, and is named with
its cause either way; when no site is left the run fails. A run that was interrupted continues after
its last aggregated round. Whatever happens, no site process outlives `run`.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

from service.domain.enums import ModelStatus, RoundEvent
from service.fl_server.embedded.aggregation import (
    Aggregator,
    NothingToAverage,
    average_metrics,
    make_aggregator,
)
from service.fl_server.embedded.parameters import Parameters, in_order, problem_with, to_npz
from service.fl_server.embedded.plan import Plan
from service.fl_server.embedded.run_log import LogFile
from service.fl_server.embedded.run_progress import RoundRecord, RunProgress
from service.fl_server.embedded.site_link import SMALL, Measured, SiteFailed, SiteLink, Update
from service.fl_server.report_writer import ReportWriter

T = TypeVar("T")

_MAX_SHOWN: Final = 3
#: Metrics and names that go into a report's details, whose size is limited.
_MAX_DETAILS: Final = 50


class TrainingFailed(Exception):
    """The run can't end well; the message is its detail."""


@dataclass(frozen=True, slots=True)
class NetFolders:
    """Where a net keeps things: `data_root/<slot>` the sites' data, `offline/<slot>` a flag file
    that takes a site out. `call_seconds` bounds one fit or evaluate, None does not."""

    data_root: Path
    offline: Path
    call_seconds: float | None = None

    def is_offline(self, slot: str) -> bool:
        """Whether the operator took this site out."""
        return (self.offline / slot).exists()


class Training:
    """One run. `folder` is its own, `reports` publishes what happens, `log` is its log."""

    def __init__(
        self,
        run_id: str,
        plan: Plan,
        slots: Sequence[str],
        folder: Path,
        folders: NetFolders,
        reports: ReportWriter,
        log: LogFile,
    ) -> None:
        self._run_id = run_id
        self._plan = plan
        self._slots = tuple(slots)
        self._folder = folder
        self._folders = folders
        self._reports = reports
        self._log = log
        self._progress = RunProgress(folder)
        self._sites: dict[str, SiteLink] = {}
        self._failures: dict[str, str] = {}

    async def run(self) -> None:
        """Train to the end and write the results.

        Raises:
            TrainingFailed: with what a person should know and do.
        """
        await asyncio.to_thread(self._progress.load)
        done = len(self._progress.rounds)
        for record in self._progress.rounds:
            self._report_round(record, final=False)
        try:
            if done < self._plan.rounds:
                await self._train(done)
            self._log.line("writing the results")
            await asyncio.to_thread(
                self._progress.write_results, self._run_id, self._plan, self._slots
            )
        except OSError as exc:
            raise TrainingFailed(f"the net's disk: {exc.strerror}") from exc
        finally:
            await self._close_sites()

    def report_final_round(self) -> None:
        """Report the last round. The caller does so when the run is about to be shown as over,
        since readers take it as the sign that results can be had."""
        self._report_round(self._progress.rounds[-1], final=True)

    async def _train(self, done: int) -> None:
        self._reports.status(ModelStatus.INITIATED)
        self._log.line(f"starting {len(self._slots)} sites: {', '.join(self._slots)}")
        await self._start_sites(done + 1)
        parameters = self._progress.parameters
        if parameters is None:
            parameters = await self._initial_parameters()
        else:
            self._log.line(f"continuing after round {done}")
        self._reports.status(ModelStatus.PREPARED)
        self._reports.status(ModelStatus.RUNNING)
        for number in range(done + 1, self._plan.rounds + 1):
            parameters = await self._round(number, parameters)

    async def _start_sites(self, number: int) -> None:
        async def begin(site: SiteLink) -> None:
            if self._folders.is_offline(site.slot):
                raise SiteFailed(site.slot, "start", "the site is offline", alive=False)
            await site.start()

        sites = [self._site(slot) for slot in self._slots]
        self._sites = {site.slot: site for site in sites}
        async with aclosing(_as_they_come(sites, begin)) as outcomes:
            async for site, outcome in outcomes:
                if isinstance(outcome, SiteFailed):
                    await self._site_failed(number, outcome)
                else:
                    self._log.line("ready", site.slot)
        self._somebody_left(number)

    def _site(self, slot: str) -> SiteLink:
        work = self._folder / "work" / slot
        return SiteLink(slot, self._plan, self._folders.data_root / slot, work, self._log)

    async def _initial_parameters(self) -> Parameters:
        """Asked of the first site: the function sees no data, so every site would say the same."""
        site = next(iter(self._sites.values()))
        try:
            parameters = await site.initial_parameters({**self._plan.config, "ROUND": 0})
        except SiteFailed as exc:
            self._report_failure_log(0, exc)
            raise TrainingFailed(f"site {exc.slot} failed, {exc.function}: {exc.cause}") from exc
        problem = problem_with(parameters, None)
        if problem is not None:
            raise TrainingFailed(f"site {site.slot} failed, initial_parameters: {problem}")
        return parameters

    async def _round(self, number: int, parameters: Parameters) -> Parameters:
        self._failures = {}
        self._reports.round(
            RoundEvent.ROUND_STARTED, number, details={"total_rounds": self._plan.rounds}
        )
        self._log.line(f"round {number} of {self._plan.rounds}")
        await self._drop_offline(number)
        updates, averaged = await self._fit(number, parameters)
        measured = await self._evaluate(number, averaged)
        sites = {
            slot: {
                "num_examples": update.num_examples,
                "metrics": _joined(update, measured.get(slot)),
            }
            for slot, update in sorted(updates.items())
        }
        metrics = {
            **_train_names(average_metrics((u.num_examples, u.metrics) for u in updates.values())),
            **average_metrics((m.num_examples, m.metrics) for m in measured.values()),
        }
        examples = sum(update.num_examples for update in updates.values())
        record = RoundRecord(number, examples, metrics, sites, dict(self._failures))
        await asyncio.to_thread(self._progress.save, averaged, record)
        shown = ", ".join(f"{name}={_short(value)}" for name, value in metrics.items())
        self._log.line(f"round {number} aggregated over {len(updates)} sites: {shown}")
        if number < self._plan.rounds:
            self._report_round(record, final=True)
        return averaged

    async def _drop_offline(self, number: int) -> None:
        for slot in list(self._sites):
            if self._folders.is_offline(slot):
                gone = SiteFailed(slot, "start", "the site went offline", alive=False)
                await self._site_failed(number, gone)
        self._somebody_left(number)

    async def _fit(
        self, number: int, parameters: Parameters
    ) -> tuple[dict[str, Update], Parameters]:
        packed = await _maybe_in_thread(parameters.nbytes, lambda: to_npz(parameters))
        config = {**self._plan.config, "ROUND": number}
        aggregator = make_aggregator(self._plan.aggregator)
        updates: dict[str, Update] = {}

        async def fit(site: SiteLink) -> Update:
            update = await site.fit(packed, parameters.keys, config, self._folders.call_seconds)
            given = update.parameters
            problem = await _maybe_in_thread(given.nbytes, lambda: problem_with(given, parameters))
            if problem is not None:
                raise SiteFailed(site.slot, "fit", problem, alive=True)
            return update

        async with aclosing(_as_they_come(list(self._sites.values()), fit)) as outcomes:
            async for site, outcome in outcomes:
                if isinstance(outcome, SiteFailed):
                    await self._site_failed(number, outcome)
                    continue
                updates[site.slot] = await self._take(
                    number, site.slot, outcome, parameters, aggregator
                )
        if not updates:
            raise TrainingFailed(
                f"round {number}: no site gave a usable result: {self._failure_summary()}"
            )
        try:
            averaged = await _maybe_in_thread(
                parameters.nbytes, lambda: aggregator.result(parameters)
            )
        except NothingToAverage as exc:
            raise TrainingFailed(f"round {number}: {exc}") from exc
        problem = await _maybe_in_thread(averaged.nbytes, lambda: problem_with(averaged, None))
        if problem is not None:
            raise TrainingFailed(f"round {number}: the average of all sites' {problem}")
        return updates, averaged

    async def _take(
        self,
        number: int,
        slot: str,
        update: Update,
        reference: Parameters,
        aggregator: Aggregator,
    ) -> Update:
        """Fold one site's update in. Only its numbers are kept, not its arrays."""
        weight = self._plan.weight(slot) * update.num_examples
        ordered = in_order(update.parameters, reference)
        await _maybe_in_thread(reference.nbytes, lambda: aggregator.add(slot, ordered, weight))
        self._reports.round(
            RoundEvent.CLIENT_RESULT_RECEIVED,
            number,
            slot=slot,
            details={"num_examples": update.num_examples, "weight": weight},
        )
        return Update(Parameters(reference.keys, ()), update.num_examples, update.metrics)

    async def _evaluate(self, number: int, parameters: Parameters) -> dict[str, Measured]:
        packed = await _maybe_in_thread(parameters.nbytes, lambda: to_npz(parameters))
        config = {**self._plan.config, "ROUND": number}
        measured: dict[str, Measured] = {}

        async def evaluate(site: SiteLink) -> Measured:
            return await site.evaluate(packed, parameters.keys, config, self._folders.call_seconds)

        async with aclosing(_as_they_come(list(self._sites.values()), evaluate)) as outcomes:
            async for site, outcome in outcomes:
                if isinstance(outcome, SiteFailed):
                    await self._site_failed(number, outcome)
                else:
                    measured[site.slot] = outcome
        return measured

    async def _site_failed(self, number: int, failure: SiteFailed) -> None:
        """Report a failed site; continue without it or end the run, as the plan says."""
        self._failures[failure.slot] = f"{failure.function}: {failure.cause}"
        self._log.line(
            f"failed in round {number}: {failure.function}: {failure.cause}", failure.slot
        )
        self._reports.round(
            RoundEvent.CLIENT_FAILED,
            number,
            slot=failure.slot,
            details={"function": failure.function, "cause": failure.cause},
            name=failure.function,
        )
        self._report_failure_log(number, failure)
        if not self._plan.ignore_result_error:
            raise TrainingFailed(
                f"site {failure.slot} failed in round {number}, {failure.function}: {failure.cause}"
            )
        if not failure.alive:
            site = self._sites.pop(failure.slot, None)
            if site is not None:
                await site.close()

    def _report_failure_log(self, number: int, failure: SiteFailed) -> None:
        text = f"{failure.slot}: {failure.function}: {failure.cause}\n{failure.trace}".strip()
        self._reports.log(f"{number}:{failure.slot}:{failure.function}", text, slot=failure.slot)

    def _somebody_left(self, number: int) -> None:
        if not self._sites:
            raise TrainingFailed(f"round {number}: no site is left: {self._failure_summary()}")

    def _failure_summary(self) -> str:
        causes = [f"{slot}: {cause}" for slot, cause in sorted(self._failures.items())]
        more = len(causes) - _MAX_SHOWN
        return "; ".join(causes[:_MAX_SHOWN]) + (f"; and {more} more" if more > 0 else "")

    def _report_round(self, record: RoundRecord, *, final: bool) -> None:
        """Report an aggregated round; again after a restart, when the same ids change nothing.
        The last one only when it is `final`."""
        if record.round == self._plan.rounds and not final:
            return
        for slot, site in record.sites.items():
            self._reports.metrics(site["metrics"], record.round, slot)
        self._reports.metrics(record.metrics, record.round)
        self._reports.round(
            RoundEvent.ROUND_AGGREGATED,
            record.round,
            details={
                **dict(list(record.metrics.items())[:_MAX_DETAILS]),
                "num_examples": record.num_examples,
                "sites": len(record.sites),
                "failed_sites": sorted(record.failed)[:_MAX_DETAILS],
                "total_rounds": self._plan.rounds,
            },
        )

    async def _close_sites(self) -> None:
        sites, self._sites = list(self._sites.values()), {}
        await asyncio.gather(*(site.close() for site in sites))
        await asyncio.to_thread(shutil.rmtree, self._folder / "work", ignore_errors=True)


def _joined(update: Update, measured: Measured | None) -> dict[str, float | None]:
    return {**_train_names(update.metrics), **(measured.metrics if measured is not None else {})}


def _train_names(metrics: dict[str, float | None]) -> dict[str, float | None]:
    """`fit`'s metrics are reported as `train_<name>`, so that `evaluate`'s keep the plain name."""
    return {n if n.startswith("train_") else f"train_{n}": v for n, v in metrics.items()}


def _short(value: float | None) -> str:
    return "null" if value is None else f"{value:.4g}"


async def _maybe_in_thread(nbytes: int, work: Callable[[], T]) -> T:
    """Arithmetic on much data must not hold up the net's answers; on little a thread costs more."""
    return work() if nbytes < SMALL else await asyncio.to_thread(work)


async def _as_they_come(
    sites: Sequence[SiteLink], ask: Callable[[SiteLink], Awaitable[T]]
) -> AsyncGenerator[tuple[SiteLink, T | SiteFailed], None]:
    """Ask all sites at once; each answer or failure when it comes.

    Inside `aclosing`: left early, the questions still open are given up before anything else goes
    on, or a process that was just being started would outlive its run.
    """

    async def one(site: SiteLink) -> tuple[SiteLink, T | SiteFailed]:
        try:
            return site, await ask(site)
        except SiteFailed as exc:
            return site, exc

    tasks = [asyncio.create_task(one(site)) for site in sites]
    try:
        for next_one in asyncio.as_completed(tasks):
            yield await next_one
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
