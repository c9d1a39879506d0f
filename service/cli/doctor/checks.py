"""The checks of `doctor`: each checks one component as the service would use it, and says how to fix it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Mapping
from typing import Final
from uuid import uuid4

from service.adapters import AdapterClients
from service.app import ManifestReader, fact_reader, make_bundles, make_nets
from service.bundles.names import parse_setting
from service.bundles.s3 import ObjectStore
from service.cli.doctor.consumer import consumer_findings
from service.cli.doctor.finding import Finding, failed, ok, warning
from service.cli.doctor.reach import unreachable
from service.contracts import registry_file
from service.contracts.wire.problems import ContractViolation
from service.errors import Invalid, ServiceError, Transient
from service.kafka.topics import Topics, ensure_topics
from service.relay.hanging import stable_offsets
from service.settings import Settings, unknown_variables
from service.store import migrate
from service.store import registry as stored
from service.store.database import close_pool, open_pool, reading
from service.store.queries import Queries

#: Longer than any transaction of a relay that is alive.
_OPEN_SECONDS: Final = 2.0
#: A backend that still answers ends an aborted run well within this.
_LONG_QUARANTINE_SECONDS: Final = 900.0


async def examine(settings: Settings) -> AsyncIterator[Finding]:
    """Every finding, as soon as it is known. What depends on a part that failed is left out."""
    for name in unknown_variables(os.environ):
        yield warning(
            "settings",
            f"{name} is read by nothing",
            "is it misspelt? docs/reference/settings.md has them all",
        )
    async for finding in _settings(settings):
        yield finding
    partitions: dict[str, int] = {}
    async for finding in _broker(settings, partitions):
        yield finding
    async for finding in _storage(settings):
        yield finding
    for backend, types in ManifestReader()().items():
        if types is None:
            fix = f"check job_types_and_required_files.{backend}.json in FL_ASSETS_DIR"
            yield failed("assets", f"the manifest of {backend} can't be read", fix)
    async for finding in _database(settings, partitions):
        yield finding


async def _settings(settings: Settings) -> AsyncIterator[Finding]:
    """Settings that are well formed and still name nothing, or something meant for one run only."""
    if settings.registry_file is not None:
        try:
            registry_file.load(await asyncio.to_thread(settings.registry_file.read_bytes))
        except OSError as exc:
            message = f"FL_REGISTRY_FILE: {settings.registry_file} can't be read: {exc.strerror}"
            yield failed("settings", message, "correct the path, or leave the variable out")
        except (ContractViolation, ServiceError) as exc:
            message = f"FL_REGISTRY_FILE: {settings.registry_file}: {exc}"
            yield failed("settings", message, "correct the file")
    host = settings.http.host
    try:
        # Any port: the service's own is taken while it runs.
        server = await asyncio.start_server(lambda *_: None, host, 0)
        server.close()
    except (OSError, UnicodeError) as exc:
        message = f"FL_HTTP__HOST: {host!r} is no address of this machine: {exc}"
        yield failed(
            "settings", message, "0.0.0.0 for all its addresses, 127.0.0.1 for itself alone"
        )
    if settings.relay_accept_log:
        message = "FL_RELAY_ACCEPT_LOG is on: every relay continues from the log without asking you"
        yield warning(
            "settings", message, "take it out again; `fl-jobs run --accept-log` is for once"
        )


async def _broker(settings: Settings, partitions: dict[str, int]) -> AsyncIterator[Finding]:
    """`partitions` becomes how many each topic has, when all are there."""
    servers = settings.kafka.bootstrap_servers
    try:
        report = await ensure_topics(settings.kafka, create=False)
    except ServiceError as exc:
        fix = "start the broker, or set FL_KAFKA__BOOTSTRAP_SERVERS (and the SASL and SSL settings)"
        yield failed("broker", f"{servers}: {exc.message}", fix)
        return
    yield ok("broker", f"{servers} answers")
    for message in report.errors:
        yield failed(
            "topics", message, "start a service, or fix the topic with your broker's tools"
        )
    for message in report.warnings:
        yield warning(
            "topics", message, "change the topic's configuration with your broker's tools"
        )
    if not report.errors:
        partitions.update(report.partitions)
        yield ok("topics", f"{len(report.partitions)} topics are as they should be")
        async for finding in _open_transactions(settings, report.partitions):
            yield finding


async def _open_transactions(
    settings: Settings, partitions: Mapping[str, int]
) -> AsyncIterator[Finding]:
    """A transaction that nobody ends keeps every read-committed reader from what comes after it."""
    topics = Topics(settings.kafka.topic_prefix)
    for topic in (*topics.inbound, topics.lifecycle, topics.job_state):
        numbers = range(partitions[topic])
        try:
            behind = _behind(await stable_offsets(settings.kafka, topic, numbers))
            if behind:
                await asyncio.sleep(_OPEN_SECONDS)
                later = _behind(await stable_offsets(settings.kafka, topic, numbers))
                behind = {n: at for n, at in behind.items() if later.get(n) == at}
        except Transient as exc:
            yield failed("topics", exc.message, "give this service's user the right to read them")
            continue
        for number, at in behind.items():
            message = f"{topic}/{number}: readers wait at offset {at} for a transaction to end"
            fix = "a relay ends its own within a minute; for others: kafka-transactions.sh abort"
            yield warning("topics", message, fix)


def _behind(offsets: Mapping[int, tuple[int, int]]) -> dict[int, int]:
    """The stable offset of each partition that has records above it."""
    return {number: stable for number, (stable, high) in offsets.items() if stable < high}


async def _storage(settings: Settings) -> AsyncIterator[Finding]:
    fix = "check the FL_S3__ settings and the AWS credentials"
    try:
        bundles = make_bundles(settings)
    except Invalid as exc:
        yield failed("object store", exc.message, fix)
        return
    try:
        await bundles.open()
        problems = await bundles.problems()
    except ServiceError as exc:
        yield failed("object store", exc.message, fix)
        return
    finally:
        await bundles.close()
    for problem in problems:
        yield failed("object store", problem.message, problem.fix)
    if not problems:
        async for finding in _write_access(settings):
            yield finding


async def _write_access(settings: Settings) -> AsyncIterator[Finding]:
    """Write into the buckets that the service writes into, and take it away again."""
    s3 = settings.s3
    store = ObjectStore(endpoint_url=s3.endpoint_url, region=s3.region)
    wanted = {
        "FL_S3__APP_DESTINATION_BUCKET": s3.app_destination_bucket,
        "FL_S3__RESULTS_BUCKET": s3.results_bucket,
    }
    refused = False
    try:
        for setting, name in wanted.items():
            place = parse_setting(name).below(".fl-jobs-doctor", uuid4())
            try:
                await store.put(place.bucket, place.key("probe"), b"")
                await store.delete_prefix(place.bucket, place.prefix)
            except ServiceError as exc:
                refused = True
                fix = "give this service's key the right to write and delete there"
                yield failed("object store", f"{setting}: {exc.message}", fix)
    finally:
        await store.close()
    if not refused:
        yield ok("object store", "all four buckets are there, and ours can be written")


async def _database(settings: Settings, partitions: Mapping[str, int]) -> AsyncIterator[Finding]:
    try:
        missing = await migrate.missing(settings.database)
    except ServiceError as exc:
        yield failed("database", exc.message, "start it, or set FL_DATABASE__DSN")
        return
    if missing:
        yield failed("database", f"{len(missing)} migration(s) missing", "`fl-jobs migrate`")
        return
    yield ok("database", "the schema is up to date")
    pool = await open_pool(settings.database)
    try:
        queries = Queries(pool)
        if partitions:
            async for finding in consumer_findings(settings, queries, partitions):
                yield finding
        version, _ = await stored.show(pool)
        if version == 0:
            yield failed("registry", "none was applied", "`fl-jobs registry apply FILE`")
            return
        yield ok("registry", f"version {version}")
        async for finding in _held_work(queries):
            yield finding
        async with reading(pool) as connection:
            registry = await fact_reader(settings).registry(connection)
        try:
            nets = make_nets(settings)
        except Invalid as exc:
            yield failed("encryption", exc.message, "correct FL_ENCRYPTION__AES_KEY_BASE64")
            return
        nets.follow(registry)
        try:
            for name, net in sorted(registry.nets.items()):
                yield await _adapter(nets, name, net.endpoint)
                if message := await unreachable(_bundle_address(settings), net.endpoint):
                    fix = "set FL_S3__PRESIGN_ENDPOINT_URL to the store's address as nets see it"
                    yield warning(f"net {name}", message, fix)
            if outside := nets.unencrypted_endpoints():
                message = f"project ids go to {', '.join(outside)} in clear"
                yield warning("encryption", message, "set FL_ENCRYPTION__AES_KEY_BASE64")
        finally:
            await nets.close()
    finally:
        await close_pool(pool)


def _bundle_address(settings: Settings) -> str | None:
    """The address in the URLs that nets get; None: AWS's own."""
    return settings.s3.presign_endpoint_url or settings.s3.endpoint_url


async def _adapter(nets: AdapterClients, name: str, endpoint: str) -> Finding:
    part = f"net {name}"
    try:
        client = nets.client(name)
        health = await client.health()
        if not await client.serving():
            return failed(part, "its adapter answers, its FL runtime does not", "start the runtime")
        clients = await client.clients()
    except (ServiceError, Invalid) as exc:
        fix = f"is its adapter up at {endpoint}? `fl-jobs registry show` has the address"
        return failed(part, exc.message, fix)
    try:
        await client.runs()
    except (ServiceError, Invalid) as exc:
        message = f"it answers, and can't list its jobs: {exc.message}"
        return failed(part, message, f"check the log of its adapter at {endpoint} (list_jobs)")
    offline = sorted(c.slot for c in clients if not c.online)
    extensions = ", ".join(sorted(health.extensions)) or "none"
    if offline:
        message = f"offline: {', '.join(offline)}; extensions: {extensions}"
        return warning(part, message, "start these sites' FL clients")
    return ok(part, f"{len(clients)} clients online; extensions: {extensions}")


async def _reservations(queries: Queries) -> AsyncIterator[Finding]:
    """Reservations that nothing will free by itself."""
    for slot in await queries.stuck_reservations(_LONG_QUARANTINE_SECONDS):
        place = f"a place is {slot['state']} for job {slot['job_id']}, run {slot['run_id'] or '?'}"
        fix = f"see what runs there, then `fl-jobs nets release {slot['job_id']}`"
        if not slot["registered"]:
            message = f"{place}, and the net left the registry: it drains until that run is over"
            fix = f"leave its adapter up; if it is gone, `fl-jobs nets release {slot['job_id']}`"
            yield warning(f"net {slot['net']}", message, fix)
        elif not slot["in_doubt"]:
            message = (
                f"{place}, since {slot['seconds'] / 60:.0f} minutes: nobody could prove its end"
            )
            yield warning(f"net {slot['net']}", message, fix)


async def _held_work(queries: Queries) -> AsyncIterator[Finding]:
    counts = await queries.counts()
    for net in await queries.nets():
        if net["strays"]:
            message = f"runs nobody here submitted: {', '.join(net['strays'][:5])}"
            yield warning(f"net {net['name']}", message, "end them there, or set strays: abort")
        for slot in net["slots"]:
            if slot["in_doubt"] and slot["state"] == "quarantined":
                message = f"the submission of job {slot['job_id']} has no known outcome"
                fix = f"see what runs there, then `fl-jobs nets release {slot['job_id']}`"
                yield failed(f"net {net['name']}", message, fix)
    async for finding in _reservations(queries):
        yield finding
    if counts["dead_letters_unsent"]:
        message = f"{counts['dead_letters_unsent']} not on their topic yet"
        yield warning("dead letters", message, "is a relay running, and does it have rights there?")
    if counts["dead_letters"]:
        message = f"{counts['dead_letters']} record(s) could not be used"
        yield warning("dead letters", message, "`fl-jobs dead-letters list`")
    if counts["outbox_lag"] > 1_000:
        message = f"{counts['outbox_lag']} events wait to be published"
        yield warning("outbox", message, "run the relay role: `fl-jobs run --role relay`")
