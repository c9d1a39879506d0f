"""A request to stop a job or a model's jobs, published as a CloudEvent."""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID

from service.contracts.inbound.stop import STOP_REQUESTED
from service.kafka.publish import event_headers, publish
from service.kafka.topics import Topics
from service.settings import Settings


async def request_stop(
    settings: Settings, name: str, target: UUID, *, by: str, reason: str | None = None
) -> None:
    """Publish a stop; `name` is `job_id` or `model_id`. Raises errors.Transient."""
    data: dict[str, Any] = {name: str(target), "requested_by": by}
    if reason:
        data["reason"] = reason
    await publish(
        settings.kafka,
        Topics(settings.kafka.topic_prefix).requests,
        str(target).encode(),
        json.dumps(data).encode(),
        event_headers(STOP_REQUESTED, str(target)),
    )
