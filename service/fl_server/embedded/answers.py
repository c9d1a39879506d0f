"""A site's answers, read by the server: nothing that a site says is taken unread.

Promise: what passes has the types that the rest of the engine relies on; anything else is
`NotAnAnswer` with the field's name.
"""

from __future__ import annotations

import math
from typing import Any

from service.fl_server.embedded.frames import Message
from service.fl_server.embedded.returned import MAX_EXAMPLES, Metrics


class NotAnAnswer(ValueError):
    """A site's answer lacks something or has it in another form."""


def num_examples(answer: Message) -> int:
    """The field `num_examples`."""
    value = answer.get("num_examples")
    if type(value) is not int or not 0 <= value <= MAX_EXAMPLES:
        raise NotAnAnswer("the site's answer has no lawful num_examples")
    return value


def metrics(answer: Message) -> Metrics:
    """The field `metrics`."""
    value = answer.get("metrics")
    if not isinstance(value, dict) or not all(map(_is_metric, value.values())):
        raise NotAnAnswer("the site's answer has no lawful metrics")
    return value


def keys(answer: Message) -> list[str] | None:
    """The arrays' names, None for a plain list."""
    value = answer.get("keys")
    if value is None:
        return None
    if not isinstance(value, list) or not all(type(key) is str for key in value):
        raise NotAnAnswer("the site's answer has no lawful names of arrays")
    return value


def error(answer: Message) -> tuple[str, str, str] | None:
    """Function, cause and trace of a fault that the site tells of."""
    value = answer.get("error")
    if value is None:
        return None
    if not isinstance(value, dict):
        raise NotAnAnswer("the site's answer has no lawful error")
    return str(value.get("function")), str(value.get("cause")), str(value.get("trace"))


def _is_metric(value: Any) -> bool:
    return value is None or (type(value) in (int, float) and math.isfinite(value))
