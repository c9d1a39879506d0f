"""Reports on the status topic: by the contract, in order, once per id, and over a broker's outage."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest

from service.contracts.inbound import reports
from service.contracts.inbound.reports import LogReported
from service.contracts.wire import envelope
from service.domain.enums import ModelStatus, RoundEvent
from service.fl_server.embedded.net import embedded_net
from service.fl_server.report_outbox import ReportEvent, ReportOutbox
from service.fl_server.report_writer import ReportWriter
from service.fl_server.reporter import TOPIC, Reporter
from service.fl_server.serving import serving
from service.kafka.clients import reader
from service.kafka.topics import ensure_topics
from service.settings import KafkaSettings
from tests.conformance.fl_server_fixtures import SLOTS, Net, app_files, bundle_host
from tests.stack import RunningStack


def settings_of(env: dict[str, str]) -> KafkaSettings:
    return KafkaSettings(
        bootstrap_servers=env["FL_KAFKA__BOOTSTRAP_SERVERS"],
        topic_prefix=f"r{uuid4().hex[:8]}.",
        partitions=3,
    )


async def read(kafka: KafkaSettings, count: int) -> list[tuple[bytes, envelope.Envelope]]:
    """The first `count` records of the status topic, decoded as the service does."""
    topic = kafka.topic_prefix + TOPIC
    found: list[tuple[bytes, envelope.Envelope]] = []
    async with reader(kafka, read_committed=True) as client:
        partitions = [_partition(topic, number) for number in range(kafka.partitions)]
        client.assign(partitions)
        await client.seek_to_beginning(*partitions)
        for _ in range(200):
            for records in (await client.getmany(timeout_ms=50)).values():
                for record in records:
                    found.append(
                        (record.key, envelope.decode(record.key, record.value, record.headers))
                    )
            if len(found) >= count:
                break
    return found


def _partition(topic: str, number: int) -> Any:
    import aiokafka

    return aiokafka.TopicPartition(topic, number)


def made_up(number: int, job: UUID, **changes: Any) -> ReportEvent:
    return ReportEvent(
        **{
            "id": f"id-{number}",
            "type": reports.LOG_REPORTED,
            "subject": str(job),
            "time": datetime.now(UTC),
            "data": json.dumps({"job_id": str(job), "attempt": 1, "log": str(number)}).encode(),
            **changes,
        }
    )


async def test_a_run_is_told_on_the_topic(stack: RunningStack, tmp_path: Path) -> None:
    kafka = settings_of(stack.env)
    await ensure_topics(kafka)
    server = embedded_net(tmp_path / "net", SLOTS, tmp_path / "data", connection=kafka)
    job = uuid4()
    key = {"Idempotency-Key": f"{job}:2", "FL-Job-Id": str(job), "FL-Attempt": "2"}
    async with (
        bundle_host() as bundles,
        serving(server.app) as url,
        httpx.AsyncClient(base_url=url) as http,
    ):
        assert "reports" in (await http.get("/health")).json()["extensions"]
        net = Net("embedded", http, bundles)
        run_id = await net.run(app_files(config={"GLOBAL_ROUNDS": 2}), headers=key)
        await net.until(run_id, "FINISHED")
        told = await read(kafka, 3 + 2 * (1 + 3 + 4 + 1))
    assert len(told) == 21
    assert len({event.id for _, event in told}) == len(told)
    for record_key, event in told:
        model = reports.report(event.type, event.data)
        assert record_key == str(job).encode()
        assert event.subject == str(job) == str(model.job_id)
        assert event.source == "/fl-api/net-1"
        assert (model.attempt, model.fl_backend_job_id) == (2, run_id)
    kinds = [event.data.get("status") or event.data.get("event_type") for _, event in told]
    assert kinds[:4] == ["INITIATED", "PREPARED", "RUNNING", "ROUND_STARTED"]
    assert kinds[-1] == "ROUND_AGGREGATED"
    assert told[-1][1].data["details"]["num_examples"] == 60


async def test_reports_wait_for_the_broker_and_then_go_out_in_order(
    stack: RunningStack, tmp_path: Path
) -> None:
    kafka = settings_of(stack.env)
    away = kafka.model_copy(update={"bootstrap_servers": "127.0.0.1:9"})
    job = uuid4()
    first = Reporter(ReportOutbox(tmp_path / "reports.db"), away, source="/fl-api/net-1")
    await first.start()
    for number in range(450):
        first.enqueue(made_up(number, job), False)
    await asyncio.sleep(0.05)
    await first.close(grace=0.1)

    await ensure_topics(kafka)
    outbox = ReportOutbox(tmp_path / "reports.db")
    assert outbox.waiting == 450
    second = Reporter(outbox, kafka, source="/fl-api/net-1")
    await second.start()
    second.enqueue(made_up(7, job, data=b"other content"), False)  # a known id: nothing new
    second.enqueue(made_up(450, job), False)
    told = await read(kafka, 451)
    assert [event.data["log"] for _, event in told] == [str(number) for number in range(451)]
    await second.close()
    assert ReportOutbox(tmp_path / "reports.db").waiting == 0


async def test_what_can_not_be_marked_as_sent_goes_out_again(
    stack: RunningStack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kafka = settings_of(stack.env)
    await ensure_topics(kafka)
    done, full = ReportOutbox.done, [True]

    def on_a_full_disk(self: ReportOutbox, positions: list[int]) -> None:
        if full and full.pop():
            raise sqlite3.OperationalError("database or disk is full")
        done(self, positions)

    monkeypatch.setattr(ReportOutbox, "done", on_a_full_disk)
    reporter = Reporter(ReportOutbox(tmp_path / "reports.db"), kafka, source="/fl-api/net-1")
    await reporter.start()
    reporter.enqueue(made_up(0, uuid4()), False)
    assert [event.id for _, event in await read(kafka, 2)] == ["id-0", "id-0"]
    await reporter.close()
    assert ReportOutbox(tmp_path / "reports.db").waiting == 0


async def test_a_report_too_large_for_any_broker_holds_up_nobody(
    stack: RunningStack, tmp_path: Path
) -> None:
    kafka = settings_of(stack.env)
    await ensure_topics(kafka)
    job = uuid4()
    reporter = Reporter(ReportOutbox(tmp_path / "reports.db"), kafka, source="/fl-api/net-1")
    await reporter.start()
    reporter.enqueue(made_up(0, job, data=b"x" * 2_000_000), False)
    reporter.enqueue(made_up(1, job), False)
    [(_, event)] = await read(kafka, 1)
    assert event.id == "id-1"
    await reporter.close()


def test_the_queue_is_bounded_but_never_for_a_status(tmp_path: Path) -> None:
    outbox = ReportOutbox(tmp_path / "reports.db", max_waiting=2)
    job = uuid4()
    taken = [outbox.add(made_up(number, job), required=False) for number in range(4)]
    assert taken == [True, True, False, False]
    assert outbox.dropped == 2
    assert outbox.add(made_up(9, job), required=True)
    outbox.done([position for position, _ in outbox.head(1)])
    assert [report.id for _, report in outbox.head(9)] == ["id-1", "id-9"]
    assert not outbox.add(made_up(0, job), required=True)  # acknowledged, and still known
    outbox.close()


RUN_IDS = [
    "11111111-1111-4111-8111-111111111111",
    "18446744073709551615",
    "run/ä\0\ud800",
    "x" * 999,
]


@pytest.mark.parametrize("run_id", RUN_IDS)
@pytest.mark.parametrize("job", [None, uuid4()])
def test_a_speaker_speaks_the_contract(job: UUID | None, run_id: str) -> None:
    kept: list[ReportEvent] = []

    def tell() -> None:
        reports = ReportWriter(
            run_id,
            uuid4(),
            job,
            3,
            lambda report, _: kept.append(report),
        )
        reports.status(ModelStatus.ERROR, "a\0b\ud800" + "x" * 900)
        reports.round(RoundEvent.ROUND_STARTED, 1, details={"loss": float("nan"), "s": "\0"})
        reports.metrics({f"m{i}\0": float("inf") for i in range(120)}, 1, "Trust_1")
        reports.log("why", "\0" + "y" * 9_000 + "end")

    tell()
    if job is None:
        assert kept == []
        return
    told = [reports.report(report.type, json.loads(report.data)) for report in kept]
    assert len(told) == 6
    last = told[-1]
    assert isinstance(last, LogReported)
    assert last.log.endswith("end")
    assert json.loads(kept[1].data)["details"] == {"loss": None, "s": ""}
    before = [report.id for report in kept]
    tell()
    assert [report.id for report in kept[6:]] == before


def test_runs_that_are_called_alike_have_reports_of_their_own() -> None:
    kept: list[ReportEvent] = []
    job = uuid4()
    for speaks in (
        ReportWriter("17", uuid4(), job, 1, lambda report, _: kept.append(report)),
        ReportWriter("17", uuid4(), job, 2, lambda report, _: kept.append(report)),
        ReportWriter("17", uuid4(), uuid4(), 1, lambda report, _: kept.append(report)),
        ReportWriter("171", uuid4(), job, 1, lambda report, _: kept.append(report)),
    ):
        speaks.status(ModelStatus.RUNNING)
    assert len({report.id for report in kept}) == 4
    assert all(UUID(report.id) for report in kept)
