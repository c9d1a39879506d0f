"""Builds the components and runs the roles: the only file that knows every room.

One process may run all roles or some; any number of processes may run the same ones side by side. A process
ends when it is asked to (work under way gets a grace period), or when a part meets something that only an
operator can settle: then it ends with that error, so that its supervisor sees it.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import secrets
import signal
import socket
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

import structlog

from service.adapters import AdapterClients
from service.adapters.lane import LaneLease
from service.bundles import S3Bundles
from service.bundles.names import parse_setting
from service.bundles.staging import LAYOUTS, StagingLimits
from service.contracts import fl
from service.domain.enums import FLBackend
from service.domain.evolve import event_name_of, is_published
from service.domain.facts import JobLimits, JobTypes
from service.errors import Invalid, Permanent, Transient
from service.ingest.consumer import Consumer
from service.ingest.progress import ReadProgress
from service.ingest.status import IngestStatus
from service.kafka.topics import Topics, ensure_topics, raise_errors
from service.relay.options import RelayOptions
from service.relay.relay import Relay
from service.relay.side_publisher import SidePublisher
from service.relay.status import RelayStatus
from service.settings import Settings
from service.steps.options import StepOptions
from service.steps.supervisor import StepSupervisor
from service.store import migrate
from service.store.commit_hints import CommitHints, Hint, hints_of
from service.store.database import Pool, close_pool, on_retry, open_pool
from service.store.facts import FactReader
from service.store.outbox import EventOutbox
from service.store.queries import Queries
from service.store.registry import apply_registry_file
from service.store.state_records import StateRecords
from service.store.store import PostgresStore
from service.store.work import Committed
from service.telemetry.metrics import INGEST, RELAY, Metrics
from service.web import Probes, serve

log = structlog.get_logger(__name__)

_MANIFEST_SECONDS: Final = 5.0
_STALLED_SECONDS: Final = 60.0
#: Parts that are of no use by themselves.
_AIDS: Final = frozenset({"stop", "commit hints"})


class Role(StrEnum):
    ALL = "all"
    INGEST = "ingest"
    SCHEDULE = "schedule"
    RELAY = "relay"
    RECONCILE = "reconcile"
    WEB = "web"


class ManifestReader:
    """The manifests of all backends, read again every few seconds: an operator may replace them."""

    def __init__(self) -> None:
        self._read_at = 0.0
        self._found: dict[FLBackend, JobTypes] = {}

    def __call__(self) -> Mapping[FLBackend, JobTypes]:
        now = time.monotonic()
        if not self._found or now - self._read_at > _MANIFEST_SECONDS:
            self._read_at = now
            self._found = {backend: self._one(backend) for backend in FLBackend}
        return self._found

    @staticmethod
    def _one(backend: FLBackend) -> JobTypes:
        types = fl.JobRequiredFiles.get_all_job_types_with_files(backend)
        return {name: tuple(files) for name, files in types.items()} or None


@dataclass(slots=True)
class App:
    """The components of one process. `stop` ends it; `ingest` and `relay` are None where they don't run."""

    settings: Settings
    roles: frozenset[Role]
    pool: Pool
    store: PostgresStore
    metrics: Metrics
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    bundles: S3Bundles | None = None
    nets: AdapterClients | None = None
    supervisor: StepSupervisor | None = None
    consumer: Consumer | None = None
    relay: Relay | None = None
    side_publisher: SidePublisher | None = None
    hints: CommitHints | None = None
    failed: BaseException | None = None

    def has(self, *roles: Role) -> bool:
        return Role.ALL in self.roles or any(role in self.roles for role in roles)

    def alive(self) -> bool:
        """The event loop turns, and so do the consumer's and the relay's loops."""
        heartbeats = [
            part.status.heartbeat for part in (self.consumer, self.relay) if part is not None
        ]
        return all(time.monotonic() - heartbeat < _STALLED_SECONDS for heartbeat in heartbeats)

    async def ready(self) -> str | None:
        """None, or what is missing: the database, or the consumer's place in its group."""
        try:
            await self.store.now()
        except Transient as exc:
            return exc.message
        if self.relay is not None and self.relay.status.stopped is not None:
            return self.relay.status.stopped
        return self.consumer.status.trouble if self.consumer is not None else None


def fact_reader(settings: Settings) -> FactReader:
    """What decisions are judged by, under these settings' limits."""
    results = parse_setting(settings.s3.results_bucket).uri
    limits = JobLimits(**settings.limits.model_dump())
    return FactReader(limits, ManifestReader(), results, LAYOUTS)


def make_store(settings: Settings, pool: Pool, partitions: int) -> PostgresStore:
    """The store of these settings; `partitions`: the lifecycle topic's."""
    return PostgresStore(
        pool,
        fact_reader(settings),
        partitions=partitions,
        lease_seconds=settings.steps.lease_seconds,
        parked_seconds=settings.ingest.parked_seconds,
        retention=settings.retention,
    )


def _step_options(settings: Settings) -> StepOptions:
    return StepOptions(
        **settings.steps.model_dump(),
        submit_unknown_seconds=settings.limits.submit_unknown_seconds,
        reports_seconds=max(20.0, 2 * settings.kafka.session_timeout_ms / 1_000),
    )


def make_bundles(settings: Settings) -> S3Bundles:
    """The bundle store of these settings, not opened yet."""
    s3 = settings.s3
    return S3Bundles(
        endpoint_url=s3.endpoint_url,
        region=s3.region,
        model_files_bucket=s3.model_files_bucket,
        app_base_bucket=s3.app_base_bucket,
        app_destination_bucket=s3.app_destination_bucket,
        results_bucket=s3.results_bucket,
        assets_dir=settings.assets_dir,
        presign_endpoint_url=s3.presign_endpoint_url,
        presign_seconds=s3.presigned_seconds,
        limits=StagingLimits(files=s3.max_bundle_files, total_bytes=s3.max_bundle_bytes),
    )


def make_nets(
    settings: Settings, metrics: Metrics | None = None, lane_lease: LaneLease | None = None
) -> AdapterClients:
    """The clients of these settings; they follow a registry when they are given one. With `lane_lease` a
    net's uploads and submits take turns with those of other processes."""
    key = settings.encryption.aes_key_base64
    return AdapterClients(
        aes_key_base64=None if key is None else key.get_secret_value(),
        on_call=None if metrics is None else metrics.on_call,
        lease_seconds=settings.steps.lease_seconds,
        lane_lease=lane_lease,
    )


async def preflight(settings: Settings) -> int:
    """What must be right before anything starts: schema and topics. Returns the lifecycle topic's
    partitions. Raises Invalid naming the command that mends it; errors.Transient when a part is
    unavailable."""
    missing = await migrate.missing(settings.database)
    if missing:
        raise Invalid(
            f"the database lacks {len(missing)} migration(s) ({missing[0]}, ...): "
            "run `fl-jobs migrate` first"
        )
    report = await ensure_topics(settings.kafka)
    raise_errors(report)
    return report.partitions[Topics(settings.kafka.topic_prefix).lifecycle]


@contextlib.asynccontextmanager
async def opened(settings: Settings, roles: Iterable[Role]) -> AsyncIterator[App]:
    """The parts that these roles need, started nowhere yet, closed at the end."""
    partitions = await preflight(settings)
    if settings.registry_file is not None:
        await apply_registry_file(settings.database, settings.registry_file)
    pool = await open_pool(settings.database)
    try:
        lifecycle = Topics(settings.kafka.topic_prefix).lifecycle
        await EventOutbox(pool).open_stream(lifecycle, partitions)
        store = make_store(settings, pool, partitions)
        app = App(settings, frozenset(roles) or frozenset({Role.ALL}), pool, store, Metrics())
        _build(app)
        counting = _retry_counter(app.metrics)
        on_retry.append(counting)
        try:
            if app.bundles is not None:
                await app.bundles.open()
            yield app
        finally:
            on_retry.remove(counting)
            if app.nets is not None:
                await app.nets.close()
            if app.bundles is not None:
                await app.bundles.close()
    finally:
        await close_pool(pool)


def _build(app: App) -> None:
    settings = app.settings
    events = asyncio.Event()
    outbox = EventOutbox(app.pool)
    if app.has(Role.RELAY):
        options, status = RelayOptions(accept_log=settings.relay_accept_log), RelayStatus()
        states = StateRecords(app.pool)
        app.relay = Relay(outbox, settings.kafka, states, events, options, status)
        app.side_publisher = SidePublisher(outbox, settings.kafka, options, status, states)
        app.metrics.follow("relay", lambda: status, RELAY)
    if app.has(Role.SCHEDULE, Role.RECONCILE):
        app.bundles = make_bundles(settings)
        holder = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"
        store = app.store
        app.nets = make_nets(
            settings, app.metrics, lambda name, seconds: store.lease(name, holder, seconds)
        )
        app.supervisor = StepSupervisor(
            app.store,
            app.nets,
            app.bundles,
            ReadProgress(Queries(app.pool), settings.kafka),
            _step_options(settings),
            holder=holder,
            on_step=app.metrics.on_step,
            schedule=app.has(Role.SCHEDULE),
            reconcile=app.has(Role.RECONCILE),
        )
    if app.has(Role.INGEST):
        ingest = IngestStatus()
        app.consumer = Consumer(app.store, outbox, settings.kafka, settings.ingest, ingest)
        app.metrics.follow("ingest", lambda: ingest, INGEST)
    app.hints = CommitHints(settings.database, lambda hints: _wake(app, events, hints))
    app.store.listeners.append(_listener(app, events))


def _retry_counter(metrics: Metrics) -> Callable[[str], None]:
    def repeated(error: str) -> None:
        if error == "DeadlockDetectedError":
            metrics.deadlocks.inc()
        else:
            metrics.serialization_retries.labels(error).inc()

    return repeated


def _listener(app: App, events: asyncio.Event) -> Callable[[Committed], None]:
    def committed_here(committed: Committed) -> None:
        app.metrics.committed(
            Counter(decision.outcome for decision in committed.decisions),
            Counter(
                event_name_of(event)
                for decision in committed.decisions
                for event in decision.events
                if is_published(event)
            ),
        )
        hints = hints_of(committed)
        _wake(app, events, hints)
        if app.hints is not None:
            app.hints.publish(hints)

    return committed_here


def _wake(app: App, events: asyncio.Event, hints: frozenset[Hint]) -> None:
    """Wake whoever waits in this process for what some process has committed."""
    if Hint.EVENTS in hints:
        events.set()
    if app.supervisor is None:
        return
    wakeups = app.supervisor.context.wakeups
    for hint, bell in (
        (Hint.READY, wakeups.claim),
        (Hint.STOPPING, wakeups.stop),
        (Hint.COLLECTING, wakeups.collect),
        (Hint.MODEL_STOPS, wakeups.model_stops),
        (Hint.REGISTRY, wakeups.registry),
    ):
        if hint in hints:
            bell.set()


async def run(
    settings: Settings,
    roles: Iterable[Role] = (Role.ALL,),
    *,
    started: Callable[[App], None] | None = None,
) -> None:
    """Run the roles until SIGTERM or SIGINT. Raises the error of a part that gave up permanently."""
    # Long-lived jobs and batches: a full collection every few hundred objects costs a tenth of ingest.
    gc.freeze()
    gc.set_threshold(400_000, 10, 50)
    async with opened(settings, roles) as app:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, app.stop.set)
        if started is not None:
            started(app)
        await run_parts(app)
    if app.failed is not None:
        raise app.failed


async def run_parts(app: App) -> None:
    """Every part as a task; the first that fails stops the others."""
    parts: dict[str, Coroutine[Any, Any, object]] = {"stop": app.stop.wait()}
    if app.relay is not None and app.side_publisher is not None:
        parts["relay"] = app.relay.run(app.stop)
        parts["side publisher"] = app.side_publisher.run(app.stop)
    if app.supervisor is not None:
        parts["steps"] = app.supervisor.run(app.stop)
    if app.consumer is not None:
        parts["ingest"] = app.consumer.run(app.stop)
    if app.hints is not None and len(parts) > 1:
        parts["commit hints"] = app.hints.run(app.stop)
    if app.has(Role.WEB):
        parts["web"] = serve(app.settings.http, app.pool, _probes(app), app.stop)
    tasks = {asyncio.create_task(part, name=name): name for name, part in parts.items()}
    log.info("service_started", roles=sorted(app.roles), parts=sorted(parts))
    await _watch(app, dict(tasks))
    app.stop.set()
    await asyncio.wait(tasks)
    for task in tasks:
        if app.failed is None and not task.cancelled() and task.exception() is not None:
            app.failed = task.exception()
    log.info("service_stopped")


async def _watch(app: App, running: dict[asyncio.Task[object], str]) -> None:
    """Until the process is asked to stop, or a component failed. One that stopped for an operator (a line
    stop, a log that contradicts the database) leaves the others running: readyz reports it."""
    while not app.stop.is_set():
        done, _ = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            part = running.pop(task)
            error = None if task.cancelled() else task.exception()
            if error is None:
                if app.stop.is_set():
                    continue
                error = Transient(f"{part} ended without a word", code="part_ended")
            app.failed = error
            log.error("part_gave_up", part=part, error=str(error))
            if not isinstance(error, Permanent) or not set(running.values()) - _AIDS:
                return


def _probes(app: App) -> Probes:
    async def schema() -> bool:
        return not await migrate.missing(app.settings.database)

    return Probes(alive=app.alive, ready=app.ready, started=schema, metrics=app.metrics)
