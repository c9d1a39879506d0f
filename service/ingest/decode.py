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
from service.store.records import INVALID_REPORT, UNDECODABLE, InboundItem, RecordRef, dead_letter

log = structlog.get_logger(__name__)


class Decoder:
    """Decodes the records of the inbound topics under one prefix."""

    def __init__(self, topic_prefix: str) -> None:
        self._expected = {
            f"{topic_prefix}{catalogue.REQUESTS.name}": translation.REQUEST_TYPES,
            f"{topic_prefix}{catalogue.JOB_STATUS.name}": translation.REPORT_TYPES,
        }

    def item(self, record: ConsumerRecord[bytes | None, bytes | None]) -> InboundItem:
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

    @staticmethod
    def unreadable(topic: str, partition: int, offset: int) -> InboundItem:
        """The item for a record that the client library could not read; see `unreadable`."""
        message = "a header name is not UTF-8; the record itself stays in its topic at this offset"
        return _dead(RecordRef(topic, partition, offset, 0, None, None, ()), UNDECODABLE, message)


def _dead(source_record: RecordRef, kind: str, message: str) -> InboundItem:
    return InboundItem(None, source_record, None, None, dead_letter(kind, message))
