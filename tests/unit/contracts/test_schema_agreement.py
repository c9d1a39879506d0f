"""The published JSON Schemas and the decoder say the same of every field of every inbound type, and what
we publish keeps its schema whatever was asked for."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import cache
from typing import Any

import jsonschema
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.contracts.inbound import beyond_schema, translation
from service.contracts.inbound.stop import STOP_REQUESTED
from service.contracts.inbound.training import REQUESTED
from service.contracts.outbound import lifecycle, state
from service.contracts.schemas.catalogue import BY_TYPE, EVENTS, Direction
from service.contracts.wire import problems
from service.contracts.wire.envelope import Envelope, Undecodable
from service.contracts.wire.problems import ContractViolation
from service.domain import commands
from service.domain.commands import Command
from service.domain.enums import ReasonCode
from service.domain.evolve import is_published
from service.domain.values import Problem, Reason
from tests.examples import files
from tests.examples.record import Example
from tests.unit.contracts.schema_values import changed, schema_of
from tests.unit.domain.job_builder import JobBuilder, request

INBOUND = [event.type for event in EVENTS if event.direction is Direction.IN]
BASES = [
    e
    for e in files.shipped_examples()
    if e.type in INBOUND and not e.invalid and e.name != "structured"
]
#: Only for what is found in generating: a schema needs milliseconds, and data is filtered nowhere.
SLOW = settings(deadline=None, suppress_health_check=list(HealthCheck))


@cache
def _validator(event_type: str) -> jsonschema.Draft202012Validator:
    return jsonschema.Draft202012Validator(schema_of(event_type))


def _read(event_type: str, data: dict[str, Any]) -> tuple[Problem, ...]:
    """What the decoder reports of a record with this data; nothing where it takes it."""
    head = {"id": "e-1", "source": "/hub", "type": event_type, "specversion": "1.0"}
    headers = [(f"ce_{name}", text.encode()) for name, text in head.items()]
    try:
        _, command = translation.read(None, json.dumps(data).encode(), headers)
    except Undecodable:
        raise
    except ContractViolation as bad:
        return bad.problems
    if isinstance(command, commands.RejectRequest | commands.RefuseStop):
        return command.errors
    return ()


def _beyond(event_type: str) -> set[tuple[str, str]]:
    return {(rule.loc, rule.type) for rule in beyond_schema.RULES.get(event_type, ())}


def _judge(event_type: str, data: dict[str, Any]) -> None:
    """Either side takes the data, or neither does; but for what `beyond_schema` lists."""
    told = _read(event_type, data)
    if told:
        kinds = {(problems.path(p.loc), p.type) for p in told}
        if not kinds <= _beyond(event_type):
            assert not _validator(event_type).is_valid(data), told
    else:
        errors = list(_validator(event_type).iter_errors(_in_one_letter_case(data)))
        assert not errors


def _in_one_letter_case(data: dict[str, Any]) -> dict[str, Any]:
    """The decoder takes UUIDs in two letter cases where the schema asks for one."""
    ids = data.get("trust_ids")
    return data | {"trust_ids": [text.lower() for text in ids]} if isinstance(ids, list) else data


def _name(example: Example) -> str:
    return f"{example.type}-{example.name}"


@pytest.mark.parametrize("example", BASES, ids=_name)
@SLOW
@given(st.data())
def test_schema_and_decoder_agree_on_generated_data(example: Example, data: st.DataObject) -> None:
    _judge(example.type, data.draw(changed(example.type, example.data)))


_ODD: list[Any] = [
    *(None, True, 0, 1, -1, 3.0, 1e2, 2.5, 1e300, 2**31, 2**63, 2**64, 10**400, -0.0),
    *("", " ", "x", "5", "true", "\0", "x\n", "é" * 200, "😀" * 256, "😀" * 257, "x" * 65_537),
    *([], [1], [None], {}, {"x": 1}, {"": ""}, {"\0": ""}, {"x": None}, {"x" * 200: 1}),
]


def _mutations(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """Every member of `value` with every odd value in its place."""
    for odd in _ODD:
        yield path, odd
    if isinstance(value, str):
        for odd in (
            value.upper(),
            value + "\n",
            value.replace("0", "\u0660"),
            f" {value}",
            value[:-1],
        ):
            yield path, odd
    members: Any = ()
    if isinstance(value, dict):
        members = [*value.items(), ("unknwon", None)]
    elif isinstance(value, list):
        members = enumerate(value)
    for name, member in members:
        yield from _mutations(member, (*path, name))


def _with(data: Any, path: tuple[Any, ...], value: Any) -> Any:
    if not path:
        return value
    copied = dict(data) if isinstance(data, dict) else list(data)
    copied[path[0]] = _with(data[path[0]] if path[0] != "unknwon" else None, path[1:], value)
    return copied


@pytest.mark.parametrize("example", BASES, ids=_name)
def test_schema_and_decoder_agree_on_every_member_with_an_odd_value(example: Example) -> None:
    for path, value in _mutations(example.data):
        if path:
            _judge(example.type, _with(example.data, path, value))


@pytest.mark.parametrize("event_type", INBOUND)
def test_null_means_left_out_for_every_optional_field(event_type: str) -> None:
    schema = schema_of(event_type)
    for shape in (schema, *schema.get("$defs", {}).values()):
        for name, field in shape.get("properties", {}).items():
            if name not in shape.get("required", ()):
                kinds = [one.get("type") for one in field.get("anyOf", ())]
                assert "null" in kinds, f"{event_type}: {name}"


def _hash(data: dict[str, Any]) -> bytes:
    command = translation.command(Envelope("e-1", "/hub", REQUESTED, data))
    assert isinstance(command, commands.RequestTraining)
    return command.request.content_hash


def test_default_null_and_left_out_are_one_content() -> None:
    base = next(e.data for e in BASES if e.type == REQUESTED and e.name == "minimal")
    for name, field in schema_of(REQUESTED)["properties"].items():
        if name not in base:
            assert _hash(base | {name: None}) == _hash(base), name
            assert _hash(base | {name: field.get("default")}) == _hash(base), name
    files_alone = {"model_files": {"uri": "s3://models/a/"}}
    assert _hash(base | {"model_files": files_alone["model_files"] | {"sha256": None}}) == _hash(
        base | files_alone
    )
    for resources in ({}, {"num_gpus": None, "mem_per_gpu_gib": None}):
        assert _hash(base | {"resources": resources}) == _hash(base)
    shapes = schema_of(REQUESTED)["$defs"]
    config = dict.fromkeys(shapes["TrainingConfig"]["properties"])
    assert _hash(base | {"config": config}) == _hash(base)


def test_a_whole_number_is_the_same_content_in_any_spelling() -> None:
    base = next(e.data for e in BASES if e.type == REQUESTED and e.name == "everything")

    def uuid_spelling_problems(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: uuid_spelling_problems(member) for name, member in value.items()}
        if isinstance(value, list):
            return [uuid_spelling_problems(member) for member in value]
        return float(value) if type(value) is int else value

    assert uuid_spelling_problems(base) != json.dumps(base)
    assert _hash(uuid_spelling_problems(base)) == _hash(base)
    for number in (2**53 + 1, 2**62, 2**63, 2**70, -(2**70)):
        app = {"app_config": {"seed": number}}
        if float(number) == number:
            assert _hash(base | {"app_config": {"seed": float(number)}}) == _hash(base | app)


def test_a_number_that_fits_no_double_is_refused_with_its_place() -> None:
    base = next(e.data for e in BASES if e.type == REQUESTED and e.name == "minimal")
    told = _read(REQUESTED, base | {"app_config": {"seed": 10**400}})
    assert [(p.loc, p.type) for p in told] == [(("app_config",), "free_form")]


@pytest.mark.parametrize("event_type", INBOUND)
def test_rules_that_no_schema_can_say_stand_in_its_comment(event_type: str) -> None:
    comment = schema_of(event_type)["$comment"]
    assert beyond_schema.TEXT in comment
    for rule in beyond_schema.RULES.get(event_type, ()):
        assert rule.about in comment


@pytest.mark.parametrize(
    ("event_type", "loc", "change"),
    [
        (REQUESTED, "min_trusts", {"min_trusts": 1_000}),
        (
            REQUESTED,
            "deadline",
            {"not_before": "2026-01-01T00:00:00Z", "deadline": "2026-01-01T00:00:00Z"},
        ),
        (REQUESTED, "config.AGGREGATION_WEIGHTS", {}),
        (REQUESTED, "app_config", {"app_config": {"a": "é" * 32_768}}),
        ("fl.job.round_reported.v1", "details", {"details": {"a": "é" * 16_384}}),
    ],
)
def test_each_listed_rule_passes_its_schema_and_not_the_decoder(
    event_type: str, loc: str, change: dict[str, Any]
) -> None:
    data = dict(next(e.data for e in BASES if e.type == event_type)) | change
    if loc.endswith("WEIGHTS"):
        data["config"] = {"AGGREGATION_WEIGHTS": dict.fromkeys(data["trust_ids"], 0)}
    assert _validator(event_type).is_valid(data)
    told = {(problems.path(p.loc), p.type) for p in _read(event_type, data)}
    assert told == {one for one in _beyond(event_type) if one[0] == loc}
    assert told


def test_patterns_read_alike_in_every_engine() -> None:
    """No class or anchor that depends on the engine; and no `$` that may stand before a line feed."""
    for event in EVENTS:
        for node in _patterned(schema_of(event.type)):
            pattern = node["pattern"]
            assert not re.search(r"\\[dDwWsSbBAZz]|\(\?|[^\x00-\x7f]", pattern), pattern
            if pattern.endswith("$") and pattern != problems.NO_NUL:
                alone = "not" in node or node.get("maxLength") == 36
                assert alone or pattern in ("^[0-9a-f-]*$", "^[0-9A-F-]*$"), pattern


def _patterned(node: Any) -> Iterator[dict[str, Any]]:
    if isinstance(node, dict):
        if isinstance(node.get("pattern"), str):
            yield node
        for member in node.values():
            yield from _patterned(member)
    elif isinstance(node, list):
        for member in node:
            yield from _patterned(member)


def _published(builder: JobBuilder, start: int) -> None:
    """Every event from `start` on, and the state after them, keeps its published schema."""
    for event in builder.events[start:]:
        if is_published(event):
            data = json.loads(lifecycle.body(builder.there, event))
            _validator(lifecycle.event_type(event)).validate(data)
            BY_TYPE[lifecycle.event_type(event)].model.model_validate(data)
    if builder.job is not None:
        _validator(state.STATE).validate(json.loads(state.body(builder.job)))


@SLOW
@given(st.data())
def test_what_any_accepted_request_makes_us_publish_keeps_its_schema(data: st.DataObject) -> None:
    base = next(e.data for e in BASES if e.type == REQUESTED and e.name == "everything")
    asked = data.draw(changed(REQUESTED, base))
    try:
        command = translation.command(Envelope("e-1", "/hub", REQUESTED, asked))
    except ContractViolation:
        return
    assert isinstance(command, Command)
    builder = JobBuilder()
    builder.do(command)
    assert builder.events
    _published(builder, 0)


@pytest.mark.parametrize("event_type", [t for t in INBOUND if t != REQUESTED])
@SLOW
@given(st.data())
def test_what_any_accepted_report_or_stop_makes_us_publish_keeps_its_schema(
    event_type: str, data: st.DataObject
) -> None:
    builder = JobBuilder(request()).run("request", "claim", "open", "know run", "running")
    names = {
        "job_id": str(builder.there.job_id),
        "attempt": builder.attempt,
        "fl_backend_job_id": None,
    }
    if event_type == STOP_REQUESTED:
        names = {"job_id": names["job_id"], "model_id": None}
    base = next(e.data for e in BASES if e.type == event_type)
    sent = data.draw(changed(event_type, base)) | names
    sent.pop("path_id", None)
    before = len(builder.events)
    try:
        command = translation.command(Envelope("e-2", "/hub", event_type, sent))
    except ContractViolation:
        return
    if isinstance(command, commands.RefuseStop):
        why = Reason(ReasonCode.INVALID_REQUEST, "the stop breaks its contract", command.errors)
        refused = lifecycle.refusal(command.job_id, command.model_id, "e-2", why)
        _validator(lifecycle.REFUSED).validate(json.loads(refused))
    elif not isinstance(command, commands.StopModel):
        builder.do(command)
        _published(builder, before)
