"""The files of `schemas/`: generated, valid by their own standards, and true to the decoder."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
import subprocess
import tarfile
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import jsonschema
import pytest
import yaml
from faststream.specification.asyncapi.v3_0_0.schema import ApplicationSchema
from pydantic import ValidationError
from typer.testing import CliRunner

from service.cli.schemas import app
from service.contracts.inbound import translation
from service.contracts.outbound.state import STATE
from service.contracts.package_data import data_path
from service.contracts.schemas import schema_files
from service.contracts.schemas.catalogue import BY_TYPE, EVENTS, TOPICS, Direction
from service.contracts.wire.envelope import SCHEMA_PREFIX
from service.contracts.wire.problems import ContractViolation
from service.domain import commands
from service.domain.enums import Lifecycle
from service.relay.records import state_headers
from tests.examples import files
from tests.examples.record import Example, ExampleOutcome

SCHEMAS = data_path("schemas")
EXAMPLES = files.shipped_examples()
#: The official JSON Schemas of AsyncAPI, published on npm alone.
SPECS = "@asyncapi/specs@6.11.1"
SPECS_SHA512 = (
    "A3WBLqAKGoJ2+6FWFtpjBlCQ1oFCcs4GxF7zsIGvNqp/klGUHjlA3aAcZ9XMMpLGE8zPeYDz2x9FmO6DSuKraQ=="
)


def _name(example: Example) -> str:
    return f"{example.type}-{example.name}"


def _schema(event_type: str) -> dict[str, Any]:
    made: dict[str, Any] = json.loads((SCHEMAS / "events" / f"{event_type}.json").read_text())
    return made


def test_committed_files_are_what_the_code_generates() -> None:
    assert schema_files.check(SCHEMAS) == []


def test_outbound_examples_are_what_the_code_publishes() -> None:
    assert list(files.stray_outbound_files()) == []
    for path, content in files.outbound_files().items():
        assert path.read_bytes() == content, path


def test_a_changed_missing_or_stray_file_is_told(tmp_path: Path) -> None:
    schema_files.export(tmp_path)
    (tmp_path / "asyncapi.yaml").write_text("asyncapi: 2.6.0\n")
    (tmp_path / "events" / "fl.job.queued.v1.json").unlink()
    (tmp_path / "events" / "fl.job.old.v1.json").write_text("{}")
    drifts = schema_files.check(tmp_path)
    assert len(drifts) == 3
    assert any(d.startswith("asyncapi.yaml: differs") for d in drifts)
    assert any(d == "events/fl.job.queued.v1.json: missing" for d in drifts)
    assert any(d.startswith("events/fl.job.old.v1.json: nothing") for d in drifts)
    assert len(schema_files.export(tmp_path)) == 3
    assert schema_files.check(tmp_path) == []


def test_command_exports_and_checks(tmp_path: Path) -> None:
    run = CliRunner()
    made = run.invoke(app, ["export", str(tmp_path / "out"), "--json"])
    assert made.exit_code == 0, made.output
    assert json.loads(made.output)["files"] == len(schema_files.generated())
    assert run.invoke(app, ["check", str(tmp_path / "out")]).exit_code == 0
    (tmp_path / "out" / "asyncapi.yaml").unlink()
    checked = run.invoke(app, ["check", str(tmp_path / "out"), "--json"])
    assert checked.exit_code == 1
    assert json.loads(checked.output)["drifts"] == ["asyncapi.yaml: missing"]
    assert run.invoke(app, ["check"]).exit_code == 0


def test_catalogue_has_every_word_and_topic() -> None:
    types = {event.type for event in EVENTS}
    assert {f"fl.job.{word.value}.v1" for word in Lifecycle} <= types
    assert len(types) == len(EVENTS) == 28
    assert {event.topic.name for event in EVENTS} == {topic.name for topic in TOPICS}


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: event.type)
def test_schemas_keep_their_meta_schema(event: Any) -> None:
    schema = _schema(event.type)
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert schema["$id"] == SCHEMA_PREFIX + event.type
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.Draft202012Validator(jsonschema.Draft202012Validator.META_SCHEMA).validate(schema)


def test_requests_are_closed_and_others_open() -> None:
    closed = {e.type for e in EVENTS if _schema(e.type).get("additionalProperties") is False}
    assert closed == {"fl.training.requested.v1", "fl.training.stop_requested.v1"}


def test_no_published_shape_has_a_cohort_query() -> None:
    for event in EVENTS:
        if event.direction is Direction.OUT:
            assert "cohort_query" not in json.dumps(_schema(event.type))
    published = [e for e in EXAMPLES if BY_TYPE[e.type].direction is Direction.OUT]
    assert all("lesions WHERE" not in json.dumps(e.record()) for e in published)


def test_every_type_has_valid_and_invalid_examples_on_disk() -> None:
    for event in EVENTS:
        kinds = {e.invalid for e in EXAMPLES if e.type == event.type}
        assert kinds == {True, False}, event.type


@pytest.mark.parametrize("example", [e for e in EXAMPLES if e.type == STATE], ids=_name)
def test_a_state_example_has_the_headers_that_the_relay_sends(example: Example) -> None:
    sequence, at = int(example.headers["ce_sequence"]), example.headers["ce_time"]
    key = example.headers["ce_subject"]
    sent = state_headers(UUID(key), key.encode(), sequence, datetime.fromisoformat(at))
    assert {name: value.decode() for name, value in sent} == example.headers


@pytest.mark.parametrize("example", EXAMPLES, ids=_name)
def test_example(example: Example) -> None:
    """Valid ones pass decoder and JSON Schema; invalid ones end as they say, with those errors."""
    event = BY_TYPE[example.type]
    validator = jsonschema.Draft202012Validator(
        _schema(example.type), format_checker=jsonschema.FormatChecker()
    )
    if event.direction is Direction.OUT:
        _outbound(example, validator)
    elif example.expect is None:
        envelope, command = translation.read(*example.raw())
        assert not isinstance(command, commands.RejectRequest | commands.RefuseStop)
        assert envelope.type == example.type
        validator.validate(envelope.data)
    else:
        outcome, told = _outcome(example)
        assert outcome is example.expect.outcome
        assert set(example.expect.errors) <= told


def _outcome(example: Example) -> tuple[ExampleOutcome, set[tuple[tuple[str | int, ...], str]]]:
    try:
        _, command = translation.read(*example.raw())
    except ContractViolation as bad:
        return ExampleOutcome.DEAD_LETTER, {(p.loc, p.type) for p in bad.problems}
    if isinstance(command, commands.RejectRequest):
        return ExampleOutcome.REJECTED, {(p.loc, p.type) for p in command.errors}
    assert isinstance(command, commands.RefuseStop)
    return ExampleOutcome.REFUSED, {(p.loc, p.type) for p in command.errors}


def _outbound(example: Example, validator: jsonschema.Draft202012Validator) -> None:
    model = BY_TYPE[example.type].model
    if example.expect is None:
        validator.validate(example.data)
        model.model_validate(example.data)
        known = set(model.model_fields) | set(model.model_computed_fields)
        assert set(example.data) <= known
    else:
        assert list(validator.iter_errors(example.data))
        with pytest.raises(ValidationError) as caught:
            model.model_validate(example.data)
        assert {(e["loc"], e["type"]) for e in caught.value.errors()} >= set(example.expect.errors)
    with pytest.raises(ContractViolation, match="Unknown event type"):
        translation.read(*example.raw())


#: What `service.contracts.inbound.beyond_schema` lists.
_BEYOND_SCHEMA = re.compile(
    r"-(all_weights_zero|deadline_before_start|lone_surrogate|min_trusts_above_trusts)$"
)


@pytest.mark.parametrize(
    "example",
    [e for e in EXAMPLES if e.invalid and isinstance(e.data, dict)],
    ids=_name,
)
def test_invalid_examples_break_the_json_schema_too(example: Example) -> None:
    errors = list(jsonschema.Draft202012Validator(_schema(example.type)).iter_errors(example.data))
    assert bool(errors) != bool(_BEYOND_SCHEMA.search(_name(example)))


def _asyncapi() -> dict[str, Any]:
    made: dict[str, Any] = yaml.safe_load((SCHEMAS / "asyncapi.yaml").read_text())
    return made


def test_asyncapi_stands_alone_and_names_every_type() -> None:
    document = _asyncapi()
    assert set(BY_TYPE) < set(document["components"]["messages"])
    for reference in re.findall(r"\$ref: '?([^'\s]+)", (SCHEMAS / "asyncapi.yaml").read_text()):
        node: Any = document
        assert reference.startswith("#/")
        for part in reference[2:].split("/"):
            node = node[part]
    addresses = {channel["address"] for channel in document["channels"].values()}
    assert {topic.name for topic in TOPICS} < addresses
    assert "fl.job-status.v1.dlq" in addresses


def test_asyncapi_messages_show_examples_that_keep_their_shapes() -> None:
    document = _asyncapi()
    for message in document["components"]["messages"].values():
        for example in message.get("examples", ()):
            for part in ("headers", "payload"):
                schema = {**message[part], "components": document["components"]}
                jsonschema.Draft7Validator(schema).validate(example[part])


def test_asyncapi_is_read_by_another_library() -> None:
    document = _asyncapi()
    document["servers"]["broker"]["pathname"] = ""  # optional by AsyncAPI, required by this reader
    read = ApplicationSchema.model_validate(document)
    assert read.asyncapi == "3.0.0"
    assert len(read.channels) == len(TOPICS) + 2


def _specs(folder: Path) -> dict[str, Any]:
    """The official AsyncAPI 3.0.0 JSON Schema, by npm and checked against its digest."""
    kept = folder / "asyncapi-3.0.0.json"
    if not kept.exists():
        npm = shutil.which("npm")
        if npm is None:
            pytest.skip(
                "npm is not installed: the official AsyncAPI schema is published there only"
            )
        command = [npm, "pack", SPECS, "--silent", "--pack-destination", str(folder)]
        got = subprocess.run(command, capture_output=True, timeout=100, check=False, cwd=folder)
        archives = list(folder.glob("*.tgz"))
        if got.returncode != 0 or not archives:
            pytest.skip(f"npm can't fetch {SPECS}")
        digest = hashlib.sha512(archives[0].read_bytes()).digest()
        assert base64.b64encode(digest).decode() == SPECS_SHA512
        with tarfile.open(archives[0]) as archive:
            member = archive.extractfile("package/schemas/3.0.0.json")
            assert member is not None
            kept.write_bytes(member.read())
        archives[0].unlink()
    schema: dict[str, Any] = json.loads(kept.read_text())
    return schema


def test_asyncapi_keeps_the_official_schema(pytestconfig: pytest.Config) -> None:
    assert pytestconfig.cache is not None
    folder = Path(pytestconfig.cache.mkdir("asyncapi"))
    validator = jsonschema.Draft7Validator(_specs(folder))
    validator.validate(_asyncapi())
    assert list(validator.iter_errors({**_asyncapi(), "channels": {"a": {"messages": 5}}}))
