"""What a producer asks for with `fl.training.requested.v1`, and the command it becomes.

The shape is closed: an unknown field is an error, since a typo in `min_trusts` must not pass.
Promise: a request that `request` accepts keeps every rule that needs no registry; one that it
refuses is answered with all errors at once. What needs the registry (approved trusts, slot names,
nets) is judged by the domain.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any, Final
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from service.contracts.fl import (
    IInitiateTrainingInputPayload,
    IOverridableConfig,
    IRequiredTrainingInformation,
)
from service.contracts.inbound.request_schema import (
    MEMORY_NEEDS_GPUS,
    OVERRIDABLE,
    UNIQUE_UUIDS,
    AppConfig,
)
from service.contracts.wire import strict_json
from service.contracts.wire.envelope import Envelope, rfc3339
from service.contracts.wire.fields import (
    NullIs,
    Sha256,
    Text128,
    Text256,
    Time,
    Uuid,
    line,
    text,
)
from service.contracts.wire.problems import ContractViolation, problem, storable, with_message
from service.contracts.wire.validation import Valid, uuid_spelling_problems, validate
from service.domain import commands
from service.domain.enums import FLAggregators, FLBackend
from service.domain.run_settings import (
    MAX_ROUNDS,
    MAX_WEIGHT,
    MIN_ROUNDS,
    MIN_WEIGHT,
    is_weight,
    nobody_weighs,
    plain_job_type,
)
from service.domain.values import Origin, PartialRequest, Problem, Request, Resources

REQUESTED: Final = "fl.training.requested.v1"
_CLOSED: Final = ConfigDict(extra="forbid", use_attribute_docstrings=True)
_S3_PREFIX: Final = with_message(
    r"^s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]/([^\x00-\x1f\x7f\\]+/)?$",
    "Should be s3://<bucket>/<prefix>/ with a slash at its end",
)
_RELATIVE: Final = with_message(
    r"^[^/\x00-\x1f\x7f\\][^\x00-\x1f\x7f\\]*$",
    "Should be a relative path with forward slashes",
)

Rounds = Annotated[int, Field(strict=True, ge=MIN_ROUNDS, le=MAX_ROUNDS)]
Weight = Annotated[
    float,
    Field(
        strict=True,
        allow_inf_nan=False,
        ge=MIN_WEIGHT,
        le=MAX_WEIGHT,
    ),
]
RelativePath = Annotated[
    str, Field(min_length=1, max_length=512, pattern=_RELATIVE), line(_RELATIVE, 512)
]
Labels = Annotated[
    dict[Annotated[str, text(64)], Annotated[str, text(256, 0)]], Field(max_length=32)
]


class TrainingConfig(IOverridableConfig):
    """FLIP's overridable settings with FLIP's limits, checked here instead of dropped later."""

    model_config = _CLOSED

    LOCAL_ROUNDS: Rounds | None = None
    """Passes of a site over its data in each global round; null: the app's own."""
    GLOBAL_ROUNDS: Rounds | None = None
    """Rounds over all sites; null: the app's own."""
    IGNORE_RESULT_ERROR: Annotated[bool, Field(strict=True)] | None = None
    """Go on without a site that failed in a round; null: the app's own."""
    AGGREGATOR: FLAggregators | None = None
    """How results are folded; null: the app's own."""
    AGGREGATION_WEIGHTS: Annotated[dict[Text128, Weight], Field(max_length=1_000)] | None = None
    """Weights by trust id or slot, 0 to 1; who is not named has 1. Null: the app's own."""


class ModelFiles(BaseModel):
    """Where the model's files lie, and the SHA-256 of those that must be exactly these."""

    model_config = _CLOSED

    uri: Annotated[
        str, Field(strict=True, max_length=1_100, pattern=_S3_PREFIX), line(_S3_PREFIX, 1_100)
    ]
    """Prefix of the files, `s3://bucket/prefix/`."""
    sha256: Annotated[dict[RelativePath, Sha256], Field(max_length=10_000), NullIs(dict)] = Field(
        default_factory=dict
    )
    """SHA-256 in hexadecimal of files that must be exactly these, by path below the prefix."""


class SiteResources(BaseModel):
    """GPUs at each participating site, and memory in GiB of each GPU."""

    model_config = ConfigDict(
        extra="forbid", use_attribute_docstrings=True, json_schema_extra=MEMORY_NEEDS_GPUS
    )

    num_gpus: Annotated[int, Field(strict=True, ge=0, le=8), NullIs(int)] = 0
    """GPUs at each site."""
    mem_per_gpu_gib: Annotated[int, Field(strict=True, ge=0, le=192), NullIs(int)] = 0
    """GiB of memory of each GPU; above 0 it needs `num_gpus`."""


class TrainingRequested(IInitiateTrainingInputPayload, IRequiredTrainingInformation):
    """Data of `fl.training.requested.v1`: train this model over these trusts."""

    model_config = _CLOSED

    job_id: Uuid
    """Chosen by the producer: the idempotency key. The same content again changes nothing."""
    model_id: Uuid
    """The model to train. Its files are looked for under this id unless `model_files` says otherwise."""
    project_id: Text128
    """The project whose approvals and limits count."""
    cohort_query: Annotated[str, text(65_536)]
    """Which patients, in the trusts' own words. It is in no event, log or metric of ours."""
    trust_ids: list[Uuid] = Field(min_length=1, max_length=1_000, json_schema_extra=UNIQUE_UUIDS)
    """The trusts that shall train, each once."""
    fl_backend: FLBackend | None = None
    """The FL runtime to train with; null: any."""
    job_type: Text128 | None = None
    """The job type of the backend's manifest; null: that of `config.json`, else `standard`."""
    config: TrainingConfig | None = None
    """Settings of the training app that go before those of its `config.json`; null: none."""
    app_config: Annotated[AppConfig, NullIs(dict)] = Field(default_factory=dict)
    """The app's own settings, which go before those of its `config.json`; at most 64 KiB as JSON."""
    model_files: ModelFiles | None = None
    """Where the files lie, and what they must be; null: under `model_id` in the bucket of model files."""
    priority: Annotated[int, Field(strict=True, ge=0, le=9), NullIs(lambda: 5)] = 5
    """0 to 9, the highest first."""
    min_trusts: Annotated[int, Field(strict=True, ge=1, le=1_000)] | None = None
    """Start when at least so many of the trusts are online; null: all of them."""
    resources: SiteResources | None = None
    """What each site must have; null: nothing special."""
    max_attempts: Annotated[int, Field(strict=True, ge=1, le=10), NullIs(lambda: 3)] = 3
    """How often the job may be tried where trying again can help."""
    not_before: Time | None = None
    """The earliest start; null: at once."""
    deadline: Time | None = None
    """The job fails when it has not ended by then; null: none."""
    max_runtime_seconds: Annotated[int, Field(strict=True, ge=60, le=2_592_000)] | None = None
    """The longest run; null: the service's own limit."""
    max_stall_seconds: Annotated[int, Field(strict=True, ge=60, le=604_800)] | None = None
    """The longest time without progress; null: the service's own limit."""
    requested_by: Text256 | None = None
    """Who asks, for people; null: not told."""
    labels: Annotated[Labels, NullIs(dict)] = Field(default_factory=dict)
    """Your own names and values, given back with every event of the job."""


def request(data: Mapping[str, Any]) -> TrainingRequested:
    """`data` as a request that keeps every rule.

    Raises:
        BadData: with every error of the fields and of the rules between them.
    """
    return validate("training request", TrainingRequested, data, _rules)


def _rules(valid: Valid, data: Mapping[str, Any]) -> Iterator[Problem]:
    yield from uuid_spelling_problems(data, "job_id", "model_id", "trust_ids")
    asked, least = data.get("trust_ids"), valid.get("min_trusts")
    if isinstance(asked, list) and least is not None and least > len(asked):
        msg = "Should be at most the number of 'trust_ids'"
        yield problem(("min_trusts",), msg, "value_error")
    if isinstance(asked, list) and "trust_ids" not in valid:
        # The field's own validator does not run once an entry has failed.
        named = [trust for trust in map(_any_uuid, asked) if trust is not None]
        if len(set(named)) < len(named):
            msg = "'trust_ids' must all be unique entries"
            yield problem(("trust_ids",), msg, "value_error")
    resources = valid.get("resources")
    if resources and resources.mem_per_gpu_gib > 0 and resources.num_gpus == 0:
        msg = "Memory above 0 needs 'num_gpus' above 0"
        yield problem(("resources", "mem_per_gpu_gib"), msg, "value_error")
    begin, end = valid.get("not_before"), valid.get("deadline")
    if begin is not None and end is not None and end <= begin:
        yield problem(("deadline",), "Should be later than 'not_before'", "value_error")
    config = valid.get("config")
    if config and config.AGGREGATION_WEIGHTS:
        yield from _weight_rules(config.AGGREGATION_WEIGHTS, valid.get("trust_ids"))
    for key in valid.get("app_config") or ():
        if key in OVERRIDABLE:
            yield problem(("app_config", key), f"'{key}' belongs into 'config'", "value_error")


def _weight_rules(weights: dict[str, float], trusts: list[UUID] | None) -> Iterator[Problem]:
    """Weights by trust id must leave somebody a weight; those by slot need the registry."""
    if not trusts or any(weights.values()):
        return
    if nobody_weighs(weights, ((trust, None) for trust in trusts)):
        msg = "At least one participant needs a weight above 0"
        yield problem(("config", "AGGREGATION_WEIGHTS"), msg, "value_error")


def to_command(model: TrainingRequested, envelope: Envelope) -> commands.RequestTraining:
    """The domain's command for an accepted request."""
    files, resources, config = model.model_files, model.resources, _config(model.config)
    wanted = Request(
        job_id=model.job_id,
        model_id=model.model_id,
        project_id=model.project_id,
        cohort_query=model.cohort_query,
        trust_ids=tuple(model.trust_ids),
        min_trusts=model.min_trusts or len(model.trust_ids),
        content_hash=content_hash(model, envelope.data, config),
        origin=origin(envelope),
        fl_backend=model.fl_backend,
        job_type=_job_type(model.job_type),
        config=config,
        app_config=model.app_config,
        model_files_uri=files.uri if files else None,
        model_files_sha256=_digests(files) if files else {},
        priority=model.priority,
        resources=_resources(resources),
        max_attempts=model.max_attempts,
        not_before=model.not_before,
        deadline=model.deadline,
        max_runtime_seconds=model.max_runtime_seconds,
        max_stall_seconds=model.max_stall_seconds,
        requested_by=model.requested_by,
        labels=model.labels,
    )
    return commands.RequestTraining(model.job_id, wanted)


def _resources(resources: SiteResources | None) -> Resources:
    if resources is None:
        return Resources()
    return Resources(resources.num_gpus, resources.mem_per_gpu_gib)


def _job_type(name: str | None) -> str | None:
    """Without the ending of an alias: both names ask for the same, and have one content hash."""
    return None if name is None else plain_job_type(name)


def origin(envelope: Envelope) -> Origin:
    """Where a command came from."""
    return Origin(envelope.id, envelope.source, envelope.traceparent)


def _config(config: TrainingConfig | None) -> dict[str, Any]:
    """The settings that were given, as plain JSON values; weights of trusts by lower-case id."""
    if config is None:
        return {}
    given = {name: value for name, value in config.__dict__.items() if value is not None}
    if config.AGGREGATOR is not None:
        given["AGGREGATOR"] = config.AGGREGATOR.value
    if weights := given.pop("AGGREGATION_WEIGHTS", None):
        given["AGGREGATION_WEIGHTS"] = {_weight_key(key): weights[key] for key in weights}
    return given


def _weight_key(key: str) -> str:
    try:
        return str(UUID(key)) if len(key) == _UUID_LENGTH else key
    except ValueError:
        return key


def _digests(files: ModelFiles) -> dict[str, str]:
    return {name: digest.lower() for name, digest in files.sha256.items()}


def content_hash(
    model: TrainingRequested, data: Mapping[str, Any], config: Mapping[str, Any]
) -> bytes:
    """SHA-256 of what the request asks for, the same however it was written.

    Values equal to the contract's defaults count as left out, the service's settings are not filled
    in, and the order of `trust_ids` does not matter. `data` is what `model` was made of (a UUID's
    text is at hand there, and making it anew would cost more than the hash), `config` its settings.
    """
    content: dict[str, Any] = {
        "job_id": data["job_id"].lower(),
        "model_id": data["model_id"].lower(),
        "project_id": model.project_id,
        "cohort_query": model.cohort_query,
        "trust_ids": sorted([trust.lower() for trust in data["trust_ids"]]),
    }
    if config:
        content["config"] = config
    fields, given = model.__dict__, model.model_fields_set
    for name, default in _OPTIONAL:
        if name not in given:
            continue
        value = fields[name]
        if value is None or value == default:
            continue
        spelling = _SPELLING.get(name)
        if spelling is not None:
            value = spelling(value, model)
            if value is None:
                continue
        content[name] = value
    return hashlib.sha256(strict_json.canonical_checked(content)).digest()


#: Every field but the five that each request has, with the value that counts as left out beside None.
_OPTIONAL: Final[tuple[tuple[str, Any], ...]] = (
    ("fl_backend", None),
    ("job_type", None),
    ("app_config", {}),
    ("model_files", None),
    ("priority", 5),
    ("min_trusts", None),
    ("resources", None),
    ("max_attempts", 3),
    ("not_before", None),
    ("deadline", None),
    ("max_runtime_seconds", None),
    ("max_stall_seconds", None),
    ("requested_by", None),
    ("labels", {}),
)
#: Those that can be written in several ways: the one that counts, None where it means the default.
_SPELLING: Final[dict[str, Callable[[Any, TrainingRequested], Any]]] = {
    "job_type": lambda value, _: plain_job_type(value),
    "app_config": lambda value, _: strict_json.plain_numbers(value),
    "model_files": lambda value, _: {"uri": value.uri, "sha256": _digests(value)},
    "min_trusts": lambda value, model: None if value == len(model.trust_ids) else value,
    "resources": lambda value, _: (
        [value.num_gpus, value.mem_per_gpu_gib] if value.num_gpus else None
    ),
    "not_before": lambda value, _: rfc3339(value),
    "deadline": lambda value, _: rfc3339(value),
}
_UUID_LENGTH: Final = 36
_LONGEST_UUID: Final = len("urn:uuid:") + _UUID_LENGTH
_MOST_TRUSTS: Final = 1_000
_WEIGHTS: Final = "AGGREGATION_WEIGHTS"


def rejection(
    data: Mapping[str, Any], bad: ContractViolation, envelope: Envelope
) -> commands.RejectRequest | None:
    """The domain's command for a refused request; None when its `job_id` can't be read."""
    job_id = usable_uuid(data.get("job_id"))
    if job_id is None:
        return None
    return commands.RejectRequest(
        job_id,
        model_id=usable_uuid(data.get("model_id")),
        project_id=_usable_text(data.get("project_id"), 128),
        content_hash=hashlib.sha256(strict_json.canonical(data)).digest(),
        errors=bad.problems,
        origin=origin(envelope),
        requested_by=_usable_text(data.get("requested_by"), 256),
        partial=_partial(data, bad.valid),
    )


def _partial(data: Mapping[str, Any], valid: Valid) -> PartialRequest:
    """What can be judged of a broken request; lists and weights entry by entry."""
    trusts: Any = valid.get("trust_ids")
    if trusts is None:
        given = data.get("trust_ids")
        trusts = map(_any_uuid, given[:_MOST_TRUSTS]) if isinstance(given, list) else ()
    config = _config(valid.get("config"))
    weights = config.get(_WEIGHTS) or _usable_weights(data.get("config"))
    return PartialRequest(
        project_id=valid.get("project_id"),
        trust_ids=tuple(trusts),
        fl_backend=valid.get("fl_backend"),
        job_type=_job_type(valid.get("job_type")),
        config={_WEIGHTS: weights} if weights else {},
        priority=valid.get("priority", 0),
        resources=_resources(valid.get("resources")),
        deadline=valid.get("deadline"),
    )


def _usable_weights(config: object) -> dict[str, float]:
    given = config.get(_WEIGHTS) if isinstance(config, dict) else None
    if not isinstance(given, dict):
        return {}
    return {
        _weight_key(key): weight
        for key, weight in list(given.items())[:1_000]
        if _usable_text(key, 128) is not None and is_weight(weight)
    }


def _any_uuid(value: object) -> UUID | None:
    """A raw value as UUID in any notation that Python takes."""
    try:
        return UUID(value) if isinstance(value, str) and len(value) <= _LONGEST_UUID else None
    except ValueError:
        return None


def usable_uuid(value: object) -> UUID | None:
    """A raw value as UUID where it is one in the usual notation."""
    if not isinstance(value, str) or len(value) != _UUID_LENGTH:
        return None
    try:
        return UUID(value)
    except ValueError:
        return None


def _usable_text(value: object, longest: int) -> str | None:
    usable = isinstance(value, str) and 0 < len(value) <= longest and value == storable(value)
    return value if usable and isinstance(value, str) else None
