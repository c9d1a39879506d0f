"""The effective config of a run: the model's `config.json`, then the request's `config` and `app_config`.

Promise: the request wins key by key; weights speak of slots, as the FL runtimes do; a value that the
runtime would silently drop (rounds out of range, an unknown aggregator, a weight that is no number
from 0 to 1) is an error instead, and so is what the backend's layout says that its runtime refuses. Every
other key is the app's own and passes untouched, `LOCAL_ROUNDS` and its variants in the model's file
included.
"""

from __future__ import annotations

import codecs
from collections.abc import Callable, Mapping
from typing import Any, Final
from uuid import UUID

import structlog

from service.contracts.fl import DEFAULT_JOB_TYPE
from service.contracts.wire import strict_json
from service.domain.enums import ReasonCode
from service.domain.run_settings import (
    AGGREGATION_WEIGHTS,
    AGGREGATOR,
    AGGREGATORS,
    GLOBAL_ROUNDS,
    is_aggregator,
    is_weight,
    nobody_weighs,
    plain_job_type,
    rounds_problem,
)
from service.domain.values import JsonObject, Request
from service.errors import Permanent

_log = structlog.get_logger(__name__)

CONFIG_FILE: Final = "config.json"
#: A run's settings are published in its `completed` event, which must fit into a record with all the rest.
_MOST_BYTES: Final = 256 * 1024


def read(body: bytes) -> dict[str, Any]:
    """The model's `config.json`.

    Raises:
        Permanent: `bad_model_config`: not UTF-8, not JSON as `strict_json` takes it, not an object.
    """
    try:
        content = strict_json.parse(body.removeprefix(codecs.BOM_UTF8))
        # What came in can be written again, as UTF-8 too (an escaped lone surrogate can't).
        strict_json.dump(content)
    except ValueError as exc:
        raise _bad(f"it is not JSON: {str(exc)[:200]}") from exc
    if not isinstance(content, dict):
        raise _bad("it must be a JSON object")
    return content


def job_type_of(request: Request, model_config: JsonObject) -> str:
    """The run's job type: the request's, else the file's, else `standard`; aliases are resolved. One that is
    no text, which `effective` reports, counts as none."""
    named = request.job_type or model_config.get("job_type")
    if not named or not isinstance(named, str):
        return DEFAULT_JOB_TYPE
    return plain_job_type(named)


def effective(
    request: Request,
    model_config: JsonObject,
    *,
    job_type: str,
    slots: Mapping[UUID, str],
    members: Mapping[UUID, str],
    refused: Callable[[JsonObject], list[str]] = lambda _: [],
) -> dict[str, Any]:
    """What the run will read. `slots` are the participants', `members` all of the net's, by trust id.

    `refused` names what the backend's own runtime would refuse, see `Layout.refused`.

    Raises:
        Permanent: `bad_model_config`, listing everything that is wrong.
    """
    config: dict[str, Any] = dict(model_config)
    config |= {key: value for key, value in request.config.items() if value is not None}
    config |= request.app_config
    if request.job_type is not None:
        config["job_type"] = job_type
    rounds = rounds_problem(config, GLOBAL_ROUNDS)
    problems = ([] if rounds is None else [rounds]) + refused(config)
    if config.get(AGGREGATOR) is not None and not is_aggregator(config[AGGREGATOR]):
        problems.append(f"{AGGREGATOR} must be one of {', '.join(AGGREGATORS)}")
    if config.get("job_type") and not isinstance(config["job_type"], str):
        problems.append("job_type must be text")
    if config.get(AGGREGATION_WEIGHTS) is not None:
        weights, wrong = _weights(config[AGGREGATION_WEIGHTS], slots, members)
        config[AGGREGATION_WEIGHTS] = weights
        problems += wrong
    size = len(strict_json.write(config).encode())
    if size > _MOST_BYTES:
        problems.append(
            f"with the request's settings it is {size:,} bytes long; {_MOST_BYTES:,} are allowed: put "
            "large values into a file of the model"
        )
    if problems:
        raise _bad("; ".join(problems))
    return config


def _weights(
    given: object, slots: Mapping[UUID, str], members: Mapping[UUID, str]
) -> tuple[dict[str, float], list[str]]:
    """The weights by slot name, and what is wrong with them."""
    if not isinstance(given, dict):
        return {}, ["AGGREGATION_WEIGHTS must be an object of slot name (or trust id) to number"]
    weights: dict[str, float] = {}
    problems: list[str] = []
    names = {*slots.values(), *members.values()}
    for key, value in given.items():
        slot = _slot(key, slots, members)
        if slot is None:
            _log.warning("weight_of_no_member_left_out", key=key[:64])
        elif slot not in names:
            known = ", ".join(sorted(names))
            problems.append(
                f"AGGREGATION_WEIGHTS names {key[:64]!r}: no trust's id, and none of the net's slots {known}"
            )
        elif not is_weight(value):
            problems.append(f"AGGREGATION_WEIGHTS[{key[:64]!r}] must be a number from 0 to 1")
        elif weights.setdefault(slot, value) != value:
            problems.append(f"AGGREGATION_WEIGHTS names {slot!r} twice, with different numbers")
    if nobody_weighs(weights, slots.items()):
        problems.append("AGGREGATION_WEIGHTS gives every participant the weight 0")
    return weights, problems


def _slot(key: str, slots: Mapping[UUID, str], members: Mapping[UUID, str]) -> str | None:
    """The slot that a key means: a slot's own name, or that of the trust with this id. None: a trust that is
    no member. A name that is no slot's stays as it is."""
    try:
        trust = UUID(key)
    except ValueError:
        return key
    return slots.get(trust) or members.get(trust)


def _bad(problem: str) -> Permanent:
    return Permanent(f"{CONFIG_FILE} of the model: {problem}", code=ReasonCode.BAD_MODEL_CONFIG)
