"""From a record to the domain's command: the one way in for every inbound event type.

Promise of `read`: a record gives a command, or raises `ContractViolation` (`Undecodable` among them) when
nobody can be answered: then it is a dead letter. A broken request or stop whose target can be read
is a command too (`RejectRequest`, `RefuseStop`), so that its producer receives an answer. Broken only by a
record beyond the size limits of the consumer.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Final

from service.contracts.inbound import reports, stop, training
from service.contracts.wire.envelope import Envelope, Undecodable, decode
from service.contracts.wire.problems import ContractViolation, problem
from service.domain import commands

Inbound = (
    commands.RequestTraining
    | commands.RejectRequest
    | commands.RequestStop
    | commands.StopModel
    | commands.RefuseStop
    | commands.Report
)

#: Event types of the topic `fl.training-requests.v1`.
REQUEST_TYPES: Final = frozenset({training.REQUESTED, stop.STOP_REQUESTED})
#: Event types of the topic `fl.job-status.v1`.
REPORT_TYPES: Final = frozenset(reports.MODELS)


def read(
    key: bytes | None,
    value: bytes | None,
    headers: Iterable[tuple[str, bytes]],
    expected: Collection[str] = REQUEST_TYPES | REPORT_TYPES,
) -> tuple[Envelope, Inbound]:
    """A record's envelope and the command it stands for; `expected` are the topic's event types.

    Raises:
        Undecodable: no CloudEvent that we take, or a type that this topic does not carry.
        BadData: a report that breaks its contract, or a request or stop whose target is unreadable.
    """
    envelope = decode(key, value, headers)
    if envelope.type not in expected:
        raise Undecodable("record", [problem(("type",), "Unknown event type here", "event_type")])
    return envelope, command(envelope)


def command(envelope: Envelope) -> Inbound:
    """The command that an event of a known type stands for.

    Raises:
        BadData: as `read`.
    """
    data = envelope.data
    if envelope.type == training.REQUESTED:
        try:
            return training.to_command(training.request(data), envelope)
        except ContractViolation as bad:
            rejected = training.rejection(data, bad, envelope)
            if rejected is None:
                raise
            return rejected
    if envelope.type == stop.STOP_REQUESTED:
        try:
            return stop.to_command(stop.stop(data), envelope)
        except ContractViolation as bad:
            refused = stop.refusal(data, bad, envelope)
            if refused is None:
                raise
            return refused
    return reports.to_command(reports.report(envelope.type, data), envelope)
