"""A Kafka record as an item of a batch: a command, or a dead letter with its cause. Never raises.

What a record means is the contracts' to say; here it is only put beside where it came from. Requests carry
no event key: their `job_id` rules, and a row for each would cost a third of the throughput.
"""

from __future__ import annotations

import structlog
from aiokafka import ConsumerRecord

from service.contracts.inbound import translation
from service.contracts.schemas import catalogue
from service.contracts.wire.envelope import Undecodable
from service.contracts.wire.problems import ContractViolation
from service.domain.commands import RejectRequest, RequestTraining
from service.kafka.lenient_records import LenientRecord
from service.kafka.record_batches import UnreadableRange
from service.store.records import (
    INVALID_REPORT,
    UNDECODABLE,
    UNREADABLE,
    InboundItem,
    RecordRef,
    dead_letter,
)

log = structlog.get_logger(__name__)


class Decoder:
    """Decodes the records of the inbound topics under one prefix."""

    def __init__(self, topic_prefix: str) -> None:
        self._expected = {
            f"{topic_prefix}{catalogue.REQUESTS.name}": translation.REQUEST_TYPES,
            f"{topic_prefix}{catalogue.JOB_STATUS.name}": translation.REPORT_TYPES,
        }

    def item(
        self, record: ConsumerRecord[bytes | None, bytes | None] | LenientRecord
    ) -> InboundItem:
        """The item for a record of one of the topics."""
        source_record = RecordRef(
            record.topic,
            record.partition,
            record.offset,
            record.timestamp,
            record.key,
            record.value,
            record.headers,
        )
        try:
            envelope, command = translation.read(
                record.key, record.value, record.headers, self._expected[record.topic]
            )
        except Undecodable as exc:
            return _dead(source_record, UNDECODABLE, exc.message)
        except ContractViolation as exc:
            # A request is dead only where its target can't be read: then nothing of it is usable.
            reported = self._expected[record.topic] is translation.REPORT_TYPES
            return _dead(source_record, INVALID_REPORT if reported else UNDECODABLE, exc.message)
        except Exception as exc:
            log.exception("decoding_failed", topic=record.topic, offset=record.offset)
            return _dead(source_record, type(exc).__name__, "decoding failed inside the service")
        if isinstance(command, RequestTraining | RejectRequest):
            return InboundItem(command, source_record, None, None, None)
        return InboundItem(
            command, source_record, envelope.event_key(), envelope.content_hash()[:16], None
        )

    def unusual(self, found: LenientRecord | UnreadableRange) -> InboundItem:
        """The item for what the client library could not hand over."""
        if isinstance(found, UnreadableRange):
            return self._unreadable(found)
        if not found.strange_names:
            return self.item(found)
        source_record = RecordRef(
            found.topic,
            found.partition,
            found.offset,
            found.timestamp,
            found.key,
            found.value,
            found.headers,
        )
        return _dead(source_record, UNDECODABLE, "a header name is not UTF-8")

    @staticmethod
    def _unreadable(found: UnreadableRange) -> InboundItem:
        """One dead letter for a batch whose records can't be had; its value is the batch's bytes."""
        source_record = RecordRef(found.topic, found.partition, found.first, 0, None, found.raw, ())
        last = found.next - 1
        offsets = f"offset {last}" if last == found.first else f"offsets {found.first} to {last}"
        message = (
            f"{found.topic}/{found.partition}, {offsets}: the records of this batch can't be read: "
            f"{found.cause}; their producer has to send them again"
        )
        return _dead(source_record, UNREADABLE, message)


def _dead(source_record: RecordRef, kind: str, message: str) -> InboundItem:
    return InboundItem(None, source_record, None, None, dead_letter(kind, message))
