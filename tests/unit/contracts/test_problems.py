"""No message of pydantic's quotes an input value: the list of error types that may reach a producer."""

from __future__ import annotations

from typing import Any, get_args

import pytest

from service.contracts import registry_file
from service.contracts.inbound import reports, stop, training
from service.contracts.wire.problems import ContractViolation, problem, storable

#: Text that no message of ours or pydantic's contains by itself.
MARK = "zqx"
_VALUES: list[Any] = [
    MARK,
    f"{MARK}-{MARK}",
    f"{{{MARK}}}",
    f"urn:uuid:{MARK}",
    f"0b9f4c1e-6a53-4d9b-9d0e-3c7a5f2e1{MARK}",
    f"2026-01-01T00:00:{MARK}",
    f"s3://{MARK}",
    [MARK],
    {MARK: MARK},
    [{MARK: MARK}],
    MARK * 40_000,
    MARK + "\0",
    MARK + "\ud800",
]


def _check(read: Any, fields: Any) -> int:
    told = 0
    for value in _VALUES:
        for name in fields:
            try:
                read({name: value})
            except ContractViolation as bad:
                problems = bad.problems
            else:
                continue
            told += len(problems)
            assert MARK not in "".join(p.msg for p in problems), (name, problems)
    return told


def test_no_message_quotes_its_input() -> None:
    assert _check(training.request, training.TrainingRequested.model_fields) > 100
    assert _check(stop.stop, stop.StopRequestModel.model_fields) > 10
    for kind, model in reports.MODELS.items():
        assert _check(lambda data, kind=kind: reports.report(kind, data), model.model_fields) > 50
    nested = ["config", "model_files", "resources"]
    for value in _VALUES:
        for name in nested:
            inner = training.TrainingRequested.model_fields[name].annotation
            for field in get_args(inner)[0].model_fields:
                with pytest.raises(ContractViolation) as caught:
                    training.request({name: {field: value}})
                assert MARK not in "".join(p.msg for p in caught.value.problems)


def test_registry_messages_quote_nothing_either() -> None:
    for value in _VALUES:
        for document in ({"nets": [{"auth": value, "endpoint": value}]}, {"trusts": value}):
            with pytest.raises(ContractViolation) as caught:
                registry_file.parse(document)
            assert MARK not in "".join(p.msg for p in caught.value.problems)


def test_problems_are_short_and_storable() -> None:
    made = problem(("a\0\ud800", 3, "x" * 900), "m\0" + "y" * 900, "kind")
    assert made.loc == ("a?", 3, "x" * 128)
    assert len(made.msg) == 300
    assert storable("a\0b\udfff") == "ab?"
