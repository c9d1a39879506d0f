"""Requests and stops: every rule, every error at once, and content that is equal when it means the same."""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID

import pytest

from service.contracts.fl import IInitiateTrainingInputPayload, IRequiredTrainingInformation
from service.contracts.inbound import stop, training
from service.contracts.inbound.translation import command
from service.contracts.wire.envelope import Envelope
from service.contracts.wire.problems import MAX_PROBLEMS, ContractViolation
from service.domain import commands
from service.domain.enums import FLBackend
from service.domain.values import PartialRequest, Resources

JOB = "0b9f4c1e-6a53-4d9b-9d0e-3c7a5f2e1d01"
MODEL = "4e1d7c2a-90b3-4f6e-8f0d-1a2b3c4d5e6f"
TRUSTS = [f"5b1c0f3e-0d6a-4c5f-9a37-2f6a1f0e7a0{n}" for n in (1, 2, 3)]
DATA: dict[str, Any] = {
    "job_id": JOB,
    "model_id": MODEL,
    "project_id": "p",
    "cohort_query": "SELECT secret",
    "trust_ids": TRUSTS,
}


def _event(data: dict[str, Any], kind: str = training.REQUESTED) -> Envelope:
    return Envelope("e-1", "/hub", kind, data, traceparent=None)


def _hash(data: dict[str, Any]) -> bytes:
    return training.to_command(training.request(data), _event(data)).request.content_hash


def _told(data: dict[str, Any]) -> dict[tuple[str | int, ...], str]:
    with pytest.raises(ContractViolation) as caught:
        training.request(data)
    return {p.loc: p.type for p in caught.value.problems}


def test_request_is_both_of_flips_payloads() -> None:
    made = training.request(DATA)
    assert isinstance(made, IInitiateTrainingInputPayload)
    assert isinstance(made, IRequiredTrainingInformation)


def test_defaults_of_the_command() -> None:
    made = command(_event(DATA))
    assert isinstance(made, commands.RequestTraining)
    request = made.request
    assert request.job_id == UUID(JOB)
    assert request.trust_ids == tuple(map(UUID, TRUSTS))
    assert (request.min_trusts, request.priority, request.max_attempts) == (3, 5, 3)
    assert request.fl_backend is request.job_type is request.model_files_uri is None
    assert request.config == request.app_config == request.labels == {}
    assert request.resources == Resources()
    assert (request.origin.event_id, request.origin.source) == ("e-1", "/hub")
    assert len(request.content_hash) == 32


def test_an_alias_of_a_job_type_is_the_type() -> None:
    plain, alias = DATA | {"job_type": "standard"}, DATA | {"job_type": "standard_client_api"}
    asked = command(_event(alias))
    assert isinstance(asked, commands.RequestTraining)
    assert asked.request.job_type == "standard"
    assert _hash(alias) == _hash(plain) != _hash(DATA)
    broken = _readable({"job_type": "standard_client_api", "typo": 1})
    assert broken.job_type == "standard"


def test_every_field_reaches_the_command() -> None:
    digest = "AB" * 32
    data = DATA | {
        "fl_backend": "flower",
        "job_type": "standard",
        "config": {
            "GLOBAL_ROUNDS": 3,
            "LOCAL_ROUNDS": None,
            "AGGREGATOR": "AccumulateWeightedAggregator",
            "AGGREGATION_WEIGHTS": {TRUSTS[0].upper(): 1, "Trust_2": 0.5},
        },
        "app_config": {"LR": 1.0},
        "model_files": {"uri": "s3://models/a/b/", "sha256": {"app/x.py": digest}},
        "priority": 9,
        "min_trusts": 1,
        "resources": {"num_gpus": 2, "mem_per_gpu_gib": 24},
        "not_before": "2026-01-01T00:00:00+02:00",
        "deadline": "2026-01-01T00:00:00Z",
        "labels": {"a": ""},
        "requested_by": "me",
    }
    made = command(_event(data))
    assert isinstance(made, commands.RequestTraining)
    request = made.request
    assert request.fl_backend is FLBackend.FLOWER
    assert request.config == {
        "GLOBAL_ROUNDS": 3,
        "AGGREGATOR": "AccumulateWeightedAggregator",
        "AGGREGATION_WEIGHTS": {TRUSTS[0]: 1.0, "Trust_2": 0.5},
    }
    assert type(request.config["AGGREGATOR"]) is str
    assert type(request.app_config["LR"]) is float
    assert request.model_files_sha256 == {"app/x.py": digest.lower()}
    assert request.resources == Resources(2, 24)
    assert request.not_before is not None
    assert request.not_before.isoformat() == "2025-12-31T22:00:00+00:00"
    json.dumps(dict(request.config))


@pytest.mark.parametrize(
    "same",
    [
        {"trust_ids": TRUSTS[::-1]},
        {"priority": 5, "max_attempts": 3, "labels": {}, "config": {}, "app_config": {}},
        {"min_trusts": 3},
        {"min_trusts": None, "fl_backend": None, "resources": None, "config": None},
        {"resources": {"num_gpus": 0}},
        {"config": {"GLOBAL_ROUNDS": None, "AGGREGATION_WEIGHTS": {}}},
        {"job_id": JOB.upper()},
    ],
)
def test_content_that_means_the_same_has_one_hash(same: dict[str, Any]) -> None:
    assert _hash(DATA | same) == _hash(DATA)


@pytest.mark.parametrize(
    "other",
    [
        {"project_id": "q"},
        {"cohort_query": "SELECT other"},
        {"trust_ids": TRUSTS[:2]},
        {"model_id": JOB},
        {"priority": 0},
        {"max_attempts": 1},
        {"min_trusts": 1},
        {"config": {"GLOBAL_ROUNDS": 1}},
        {"app_config": {"LR": 0}},
        {"labels": {"a": "b"}},
        {"requested_by": "me"},
        {"deadline": "2026-01-01T00:00:00Z"},
        {"max_runtime_seconds": 60},
        {"max_stall_seconds": 60},
        {"fl_backend": "embedded"},
        {"job_type": "standard"},
        {"model_files": {"uri": "s3://models/a/"}},
        {"resources": {"num_gpus": 1}},
    ],
)
def test_other_content_has_another_hash(other: dict[str, Any]) -> None:
    assert _hash(DATA | other) != _hash(DATA)


def test_equal_times_and_numbers_have_one_hash() -> None:
    first = DATA | {"deadline": "2026-01-01T00:00:00Z", "app_config": {"a": 1, "b": 2}}
    second = DATA | {"app_config": {"b": 2.0, "a": 1.0}, "deadline": "2026-01-01T01:00:00.0+01:00"}
    assert _hash(first) == _hash(second)


@pytest.mark.parametrize(
    ("change", "loc"),
    [
        ({"trust_ids": [TRUSTS[0].replace("-", "")]}, ("trust_ids", 0)),
        ({"trust_ids": "x"}, ("trust_ids",)),
        (
            {"trust_ids": [f"{n:08x}-0000-0000-0000-000000000000" for n in range(1001)]},
            ("trust_ids",),
        ),
        ({"cohort_query": "x" * 65_537}, ("cohort_query",)),
        ({"project_id": "x" * 129}, ("project_id",)),
        ({"project_id": 5}, ("project_id",)),
        ({"fl_backend": "spark"}, ("fl_backend",)),
        ({"priority": "5"}, ("priority",)),
        ({"priority": True}, ("priority",)),
        ({"min_trusts": 0}, ("min_trusts",)),
        ({"min_trusts": 4}, ("min_trusts",)),
        ({"config": {"X": 1}}, ("config", "X")),
        ({"config": {"IGNORE_RESULT_ERROR": 1}}, ("config", "IGNORE_RESULT_ERROR")),
        ({"config": {"AGGREGATION_WEIGHTS": {"a": True}}}, ("config", "AGGREGATION_WEIGHTS", "a")),
        ({"config": {"AGGREGATION_WEIGHTS": {"a": -0.1}}}, ("config", "AGGREGATION_WEIGHTS", "a")),
        ({"app_config": {"a": "x" * 65_530}}, ("app_config",)),
        ({"app_config": {"a": 10**400}}, ("app_config",)),
        ({"app_config": [1]}, ("app_config",)),
        ({"model_files": {"uri": "s3://models"}}, ("model_files", "uri")),
        ({"model_files": {"uri": "s3://m/a"}}, ("model_files", "uri")),
        (
            {"model_files": {"uri": "s3://models/a/", "sha256": {"a": "12"}}},
            ("model_files", "sha256", "a"),
        ),
        (
            {"model_files": {"uri": "s3://models/a/", "sha256": {"/a": "0" * 64}}},
            ("model_files", "sha256", "/a", "[key]"),
        ),
        ({"resources": {"num_gpus": 9}}, ("resources", "num_gpus")),
        ({"resources": {"mem_per_gpu_gib": 1}}, ("resources", "mem_per_gpu_gib")),
        ({"not_before": 1_700_000_000}, ("not_before",)),
        ({"not_before": "2026-02-30T00:00:00Z"}, ("not_before",)),
        ({"deadline": "1969-12-31T23:59:59Z"}, ("deadline",)),
        ({"deadline": "10000-01-01T00:00:00Z"}, ("deadline",)),
        ({"deadline": "2026-01-02T24:00:00Z"}, ("deadline",)),
        ({"deadline": "2026-01-02T00:00:00+24:00"}, ("deadline",)),
        ({"labels": {f"k{n}": "" for n in range(33)}}, ("labels",)),
        ({"labels": {"k": 5}}, ("labels", "k")),
        ({"requested_by": "x" * 257}, ("requested_by",)),
        ({"job_type": "\ud800"}, ("job_type",)),
        ({"unknown": 1}, ("unknown",)),
    ],
)
def test_a_broken_rule_names_its_place(change: dict[str, Any], loc: tuple[str | int, ...]) -> None:
    assert loc in _told(DATA | change)


def test_rules_between_fields_are_told_beside_broken_fields() -> None:
    told = _told(
        DATA
        | {
            "project_id": 5,
            "min_trusts": 9,
            "resources": {"mem_per_gpu_gib": 8},
            "app_config": {"GLOBAL_ROUNDS": 1},
            "not_before": "2026-01-02T00:00:00Z",
            "deadline": "2026-01-01T00:00:00Z",
            "config": {"AGGREGATION_WEIGHTS": dict.fromkeys(TRUSTS, 0)},
        }
    )
    assert told[("project_id",)] == "string_type"
    assert set(told) == {
        ("project_id",),
        ("min_trusts",),
        ("resources", "mem_per_gpu_gib"),
        ("app_config", "GLOBAL_ROUNDS"),
        ("deadline",),
        ("config", "AGGREGATION_WEIGHTS"),
    }


def test_min_trusts_is_judged_though_trusts_are_broken() -> None:
    told = _told(DATA | {"trust_ids": [TRUSTS[0], TRUSTS[0]], "min_trusts": 3})
    assert set(told) == {("trust_ids",), ("min_trusts",)}


def test_zero_weights_of_slots_are_the_registrys_matter() -> None:
    training.request(DATA | {"config": {"AGGREGATION_WEIGHTS": {"Trust_1": 0}}})
    training.request(DATA | {"config": {"AGGREGATION_WEIGHTS": {TRUSTS[0]: 0}}})


def test_no_error_quotes_the_input_and_all_are_storable() -> None:
    secret = "hunter2"
    bad = {
        "job_id": f"{{{secret}}}",
        "model_id": f"{secret}-{secret}",
        "project_id": [secret],
        "cohort_query": {secret: 1},
        "trust_ids": [secret],
        "fl_backend": secret,
        "not_before": secret,
        "deadline": f"2026-{secret}",
        "config": {"AGGREGATOR": secret, "LOCAL_ROUNDS": secret},
        "model_files": {"uri": secret},
        "priority": secret,
        "a\0\ud800" + "b" * 500: 1,
    }
    with pytest.raises(ContractViolation) as caught:
        training.request(bad)
    assert len(caught.value.problems) >= 12
    for p in caught.value.problems:
        assert secret not in p.msg
        assert len(p.msg) <= 300
        text = ".".join(map(str, p.loc))
        assert "\0" not in text
        assert len(text.encode()) < 400
    assert secret not in str(caught.value)


def test_a_name_that_is_no_unicode_hides_no_other_error() -> None:
    told = _told(
        {"project_id": 5, "config": {"\ud800": 1, "LOCAL_ROUNDS": 0}, "a\ud800": 1, "job_id": JOB}
    )
    assert told.keys() >= {
        ("a?",),
        ("config", "?"),
        ("config", "LOCAL_ROUNDS"),
        ("project_id",),
        ("trust_ids",),
    }


def test_a_flood_of_errors_is_cut() -> None:
    with pytest.raises(ContractViolation) as caught:
        training.request(DATA | {f"x{n}": n for n in range(5_000)})
    assert len(caught.value.problems) == MAX_PROBLEMS


def test_a_broken_request_with_a_job_id_is_a_rejection() -> None:
    data = DATA | {"model_id": "x", "project_id": "p\0", "requested_by": "me"}
    made = command(_event(data))
    assert isinstance(made, commands.RejectRequest)
    assert made.job_id == UUID(JOB)
    assert made.model_id is None
    assert made.project_id is None
    assert made.requested_by == "me"
    again = command(_event(dict(reversed(data.items()))))
    assert isinstance(again, commands.RejectRequest)
    assert again.content_hash == made.content_hash
    with pytest.raises(ContractViolation):
        command(_event(data | {"job_id": JOB.replace("-", "")}))


def _readable(change: dict[str, Any]) -> PartialRequest:
    made = command(_event(DATA | change))
    assert isinstance(made, commands.RejectRequest)
    return made.partial


def test_a_rejection_carries_what_is_valid_by_itself() -> None:
    other = {
        "fl_backend": "flower",
        "job_type": "odd",
        "resources": {"num_gpus": 2},
        "deadline": "2026-01-01T00:00:00Z",
        "config": {"AGGREGATION_WEIGHTS": {TRUSTS[0].upper(): 1, "Trust_2": 0.5}},
    }
    whole = _readable(other | {"typo": 1})
    ids = tuple(map(UUID, TRUSTS))
    assert (whole.project_id, whole.trust_ids, whole.priority) == ("p", ids, 5)
    assert (whole.fl_backend, whole.job_type) == (FLBackend.FLOWER, "odd")
    assert whole.config == {"AGGREGATION_WEIGHTS": {TRUSTS[0]: 1.0, "Trust_2": 0.5}}
    assert whole.resources == Resources(2)
    assert whole.deadline is not None
    # Rules between fields leave the fields as they are.
    assert _readable(other | {"min_trusts": 4}) == whole


def test_a_rejection_carries_no_more_than_that() -> None:
    weights = {"Trust_1": 0.5, "Trust_2": 2, "Trust_3": True, "x\0": 1, "y" * 129: 1}
    part = _readable(
        {
            "project_id": "p\0",
            "trust_ids": [TRUSTS[0], "nope", 5, TRUSTS[1].replace("-", ""), TRUSTS[0]],
            "fl_backend": "spark",
            "job_type": "",
            "priority": 99,
            "resources": {"num_gpus": 99},
            "deadline": "soon",
            "config": {"AGGREGATION_WEIGHTS": weights, "LOCAL_ROUNDS": 0},
        }
    )
    first = UUID(TRUSTS[0])
    assert part == PartialRequest(
        trust_ids=(first, None, None, UUID(TRUSTS[1]), first),
        config={"AGGREGATION_WEIGHTS": {"Trust_1": 0.5}},
    )
    for odd in ({"trust_ids": "x", "config": [1]}, {"trust_ids": [], "config": {"X": 1}}):
        assert _readable(odd) == PartialRequest("p", priority=5)


def test_repeated_trusts_are_told_beside_one_that_is_no_uuid() -> None:
    told = _told(DATA | {"trust_ids": [TRUSTS[0], "nope", TRUSTS[0].upper()]})
    assert told == {("trust_ids", 1): "uuid_parsing", ("trust_ids",): "value_error"}


@pytest.mark.parametrize("odd", ["nope", "\ud800", "", 5])
def test_one_mistake_is_told_once(odd: Any) -> None:
    with pytest.raises(ContractViolation) as caught:
        training.request(DATA | {"model_id": odd, "trust_ids": [odd, TRUSTS[0]]})
    assert sorted(p.loc for p in caught.value.problems) == [("model_id",), ("trust_ids", 0)]


def _stop(data: dict[str, Any]) -> Any:
    return command(_event(data, stop.STOP_REQUESTED))


def test_stops() -> None:
    assert _stop({"job_id": JOB, "reason": "x" * 900}).reason == "x" * 500
    assert _stop({"job_id": JOB, "reason": "a\0b\ud800"}).reason == "ab?"
    assert isinstance(_stop({"model_id": MODEL}), commands.StopModel)
    both = _stop({"job_id": JOB, "model_id": MODEL, "requested_by": "me"})
    assert isinstance(both, commands.RequestStop)
    assert both.requested_by == "me"
    assert both.origin is not None


@pytest.mark.parametrize(
    ("data", "loc"),
    [
        ({"job_id": JOB, "reason": 5}, ("reason",)),
        ({"job_id": JOB, "oops": 5}, ("oops",)),
        ({"job_id": "x", "model_id": MODEL}, ("job_id",)),
        ({"job_id": JOB, "requested_by": ""}, ("requested_by",)),
    ],
)
def test_broken_stops_are_refused(data: dict[str, Any], loc: tuple[str, ...]) -> None:
    made = _stop(data)
    assert isinstance(made, commands.RefuseStop)
    assert loc in {p.loc for p in made.errors}


@pytest.mark.parametrize("data", [{}, {"job_id": None}, {"job_id": "x"}, {"reason": "y"}])
def test_a_stop_of_nothing_is_a_dead_letter(data: dict[str, Any]) -> None:
    with pytest.raises(ContractViolation):
        _stop(data)


@pytest.mark.parametrize(
    ("text", "counts_as"),
    [
        ("9999-12-31T23:59:59-01:00", "9999-12-31T23:59:59.999999+00:00"),
        ("1970-01-01T00:00:00+01:00", "1970-01-01T00:00:00+00:00"),
    ],
)
def test_an_offset_does_not_carry_a_time_out_of_the_years_that_can_be_kept(
    text: str, counts_as: str
) -> None:
    made = training.request(DATA | {"deadline": text})
    assert made.deadline is not None
    assert made.deadline.isoformat() == counts_as


def test_whole_numbers_beyond_64_bits_are_taken_as_doubles() -> None:
    made = training.request(
        DATA | {"app_config": {"a": 2**70, "b": [2**63 - 1, -(2**64)], "c": True}}
    )
    assert made.app_config == {"a": 2.0**70, "b": [2**63 - 1, -(2.0**64)], "c": True}
    assert type(made.app_config["a"]) is float
    assert made.app_config["c"] is True


def test_whole_floats_are_integers_also_beside_other_mistakes() -> None:
    told = _told(DATA | {"min_trusts": 9.0, "max_attempts": 2.0, "priority": 2.5})
    assert told == {("priority",): "int_type", ("min_trusts",): "value_error"}
    told = _told(DATA | {"max_attempts": 2.0, "priority": 10.0, "a\ud800": 1})
    assert told == {("a?",): "string_unicode", ("priority",): "less_than_equal"}


def test_a_broken_request_with_null_for_its_priority_is_judged_by_the_default() -> None:
    assert _readable({"priority": None, "typo": 1}).priority == 5
