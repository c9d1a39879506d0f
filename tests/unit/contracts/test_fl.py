"""FLIP's contracts keep FLIP's names, defaults and leniency."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from pydantic import ValidationError

from service.contracts import fl
from service.contracts.fl_lists import read_client_list, read_job_list, read_jobs
from service.contracts.package_data import data_path
from service.errors import Invalid


def test_enums_have_exactly_flips_words() -> None:
    assert [s.value for s in fl.FLJobStatus] == [
        "PENDING",
        "RUNNING",
        "FINISHED",
        "FAILED",
        "STOPPED",
    ]
    assert {b.value for b in fl.FLBackend} == {"nvflare", "flower", "embedded"}
    assert fl.FLAggregators.__members__ == {
        name: name
        for name in ("InTimeAccumulateWeightedAggregator", "AccumulateWeightedAggregator")
    }
    assert {s.value for s in fl.JobStatus} == {"QUEUED", "IN_PROGRESS", "COMPLETED", "DELETED"}
    assert {s.value for s in fl.NetStatus} == {"AVAILABLE", "BUSY"}
    assert fl.ClientStatus("no_reply") is fl.ClientStatus.NO_REPLY
    assert {s.value for s in fl.ModelStatus} >= {"INITIATED", "PREPARED", "RUNNING", "ERROR"}
    assert fl.AggregationWeights.MinimumAggregationWeight == 0
    assert fl.AggregationWeights.MaximumAggregationWeight == 1
    assert fl.DEFAULT_JOB_TYPE == "standard"


@pytest.mark.parametrize(
    ("model", "fields"),
    [
        (fl.IStartTrainingBody, {"project_id", "cohort_query", "trusts", "bundle_urls"}),
        (fl.ISchedulerResponse, {"id", "netId"}),
        (fl.IJobResponse, {"id", "model_id", "trust_ids"}),
        (fl.IJobMetaData, {"job_id", "status"}),
        (fl.IRequiredTrainingInformation, {"project_id", "cohort_query"}),
        (fl.IInitiateTrainingInputPayload, {"trust_ids"}),
        (fl.INetDetails, {"name", "endpoint", "fl_backend"}),
        (fl.IServerStatus, {"status"}),
        (fl.IClientStatus, {"name", "code", "status", "fl_kit_slot"}),
        (
            fl.INetStatus,
            {"name", "fl_backend", "online", "registered_clients", "net_in_use", "clients"},
        ),
        (
            fl.IOverridableConfig,
            {
                "LOCAL_ROUNDS",
                "GLOBAL_ROUNDS",
                "IGNORE_RESULT_ERROR",
                "AGGREGATOR",
                "AGGREGATION_WEIGHTS",
            },
        ),
    ],
)
def test_models_have_exactly_flips_fields(model: Any, fields: set[str]) -> None:
    assert set(model.model_fields) == fields


def test_overridable_config_defaults_to_nothing() -> None:
    assert set(fl.IOverridableConfig().model_dump().values()) == {None}


def test_trust_ids_are_some_and_unique() -> None:
    trust = uuid4()
    with pytest.raises(ValidationError, match="'trust_ids' must all be unique entries"):
        fl.IInitiateTrainingInputPayload(trust_ids=[trust, trust])
    with pytest.raises(ValidationError, match="at least 1"):
        fl.IInitiateTrainingInputPayload(trust_ids=[])
    with pytest.raises(ValidationError, match="extra"):
        fl.IInitiateTrainingInputPayload.model_validate({"trust_ids": [trust], "trusts": []})
    assert fl.IInitiateTrainingInputPayload.must_be_unique([trust]) == [trust]


@pytest.mark.parametrize(
    ("status", "online"),
    [("no_reply", False), ("DISCONNECTED", False), ("CONNECTED", True), ("no_jobs", True)],
)
def test_client_is_online_unless_it_is_gone(status: str, online: bool) -> None:
    client = fl.IClientStatus(name="Trust_1", status="a word nobody knows")
    assert client.online
    client.status = status
    assert client.online is online
    assert json.loads(client.model_dump_json())["online"] is online


def test_extra_fields_of_adapters_are_ignored() -> None:
    assert fl.IServerStatus.model_validate({"status": "RUNNING", "start_time": None}).status
    listed = {"job_id": "1", "status": "RUNNING", "status_details": "x"}
    assert fl.IJobMetaData.model_validate(listed).model_dump() == {
        "job_id": "1",
        "status": "RUNNING",
    }


@pytest.mark.parametrize("backend", list(fl.FLBackend))
def test_shipped_manifests_name_the_standard_job(backend: fl.FLBackend) -> None:
    files = fl.JobRequiredFiles.get_required_files(fl.DEFAULT_JOB_TYPE, backend)
    assert "config.json" in files
    assert fl.JobRequiredFiles.is_valid_job_type("standard", backend)
    assert not fl.JobRequiredFiles.is_valid_job_type("nonsense", backend)
    assert fl.JobRequiredFiles.get_required_files("nonsense", backend) == []
    assert fl.JobRequiredFiles()


@pytest.mark.parametrize(
    "content",
    [None, "[]", '{"standard": "trainer.py"}', '{"standard": [1]}', "{", "[" * 5000, b"\xff"],
)
def test_unusable_manifest_is_empty(
    content: str | bytes | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fl, "ASSETS_DIR", tmp_path)
    path = fl.required_job_types_file(fl.FLBackend.FLOWER)
    assert path == tmp_path / "job_types_and_required_files.flower.json"
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    assert fl._load_job_types_config(fl.FLBackend.FLOWER) == {}
    assert fl.JobRequiredFiles.get_all_job_types_with_files(fl.FLBackend.FLOWER) == {}


def test_manifest_is_read_anew_and_given_as_a_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fl, "ASSETS_DIR", tmp_path)
    path = fl.required_job_types_file(fl.FLBackend.EMBEDDED)
    path.write_text('{"standard": ["a.py"]}')
    assert fl.JobRequiredFiles.get_required_files("standard", fl.FLBackend.EMBEDDED) == ["a.py"]
    path.write_text('{"other": ["b.py"]}')
    assert not fl.JobRequiredFiles.is_valid_job_type("standard", fl.FLBackend.EMBEDDED)
    kept = {"standard": ["c.py"]}
    monkeypatch.setattr(fl, "_load_job_types_config", lambda backend: kept)
    fl.JobRequiredFiles.get_all_job_types_with_files(fl.FLBackend.EMBEDDED)["standard"].append("d")
    fl.JobRequiredFiles.get_required_files("standard", fl.FLBackend.EMBEDDED).append("e")
    assert kept == {"standard": ["c.py"]}


def test_assets_and_schemas_are_found() -> None:
    assert data_path("assets") == fl.ASSETS_DIR
    assert (data_path("schemas") / "asyncapi.yaml").is_file()
    assert not data_path("no-such-folder").exists()


def test_job_list_is_read_entry_by_entry() -> None:
    runs = read_job_list(
        [
            {"job_id": "a", "status": "RUNNING", "status_details": None, "more": 1},
            {"job_id": 17, "status": "finished", "status_details": " x\n " + "y" * 900},
            {"job_id": "b", "status": "FINISHED:ABORTED", "status_details": "N/A"},
            {"job_id": "c"},
            {"status": "RUNNING"},
            {"job_id": "\0", "status": "RUNNING"},
            "nonsense",
            None,
        ]
    )
    assert [(r.job_id, r.status) for r in runs] == [
        ("a", fl.FLJobStatus.RUNNING),
        ("17", fl.FLJobStatus.FINISHED),
        ("b", fl.FLJobStatus.STOPPED),
        ("c", None),
    ]
    assert runs[1].status_details is not None
    assert len(runs[1].status_details) == 500
    assert "\n" not in runs[1].status_details
    assert runs[2].word == "FINISHED:ABORTED"
    assert runs[2].status_details == "FINISHED:ABORTED"


@pytest.mark.parametrize(
    ("status", "words"),
    {
        fl.FLJobStatus.PENDING: "SUBMITTED starting Approved DISPATCHED pending",
        fl.FLJobStatus.RUNNING: "RUNNING running Started in-progress FLJobStatus.RUNNING status:running",
        fl.FLJobStatus.FINISHED: "FINISHED:COMPLETED finished:completed finished: FINISHED_OK COMPLETED",
        fl.FLJobStatus.STOPPED: "FINISHED:ABORTED finished:stopped Cancelled JobStatus.ABORTED",
        fl.FLJobStatus.FAILED: "finished:failed FINISHED:EXECUTION_EXCEPTION FINISHED:CAN_NOT_SCHEDULE"
        " finished:some_new_way FAILED error",
        None: "banana NOT_RUNNING unfinished",
    }.items(),
)
def test_native_words_of_the_runtimes_stand_for_a_status(
    status: fl.FLJobStatus | None, words: str
) -> None:
    for word in words.split():
        for uuid_spelling_problems in (
            word,
            f"  {word}\n",
            word.swapcase(),
            word.replace(":", " : "),
        ):
            (run,) = read_job_list([{"job_id": "a", "status": uuid_spelling_problems}])
            assert run.status is status, uuid_spelling_problems
            assert status is not None or run.word == uuid_spelling_problems


@pytest.mark.parametrize("status", [{"status": "finished", "sub_status": "failed"}, "finished"])
def test_a_sub_status_in_a_field_of_its_own_counts(status: object) -> None:
    entry = {"job_id": "a", "status": status, "sub_status": "failed"}
    assert read_job_list([entry])[0].status is fl.FLJobStatus.FAILED


@pytest.mark.parametrize(
    ("words", "counts"),
    [
        ("FINISHED RUNNING", "FINISHED"),
        ("RUNNING FINISHED", "FINISHED"),
        ("banana PENDING", "PENDING"),
        ("RUNNING PENDING", "RUNNING"),
        ("FINISHED FAILED", "FAILED"),
        ("FAILED FINISHED RUNNING", "FAILED"),
        ("STOPPED FINISHED", "STOPPED"),
    ],
)
def test_a_run_listed_twice_is_where_it_came_furthest(words: str, counts: str) -> None:
    """It stands in the list once; of two ends the worse counts."""
    listed = read_jobs(
        [{"job_id": "a", "status": word} for word in words.split()]
        + [{"job_id": "b", "status": "RUNNING"}]
    )
    assert [(r.job_id, r.status) for r in listed.runs] == [("a", counts), ("b", "RUNNING")]
    assert listed.entries == len(words.split()) + 1


def test_entries_that_name_no_run_are_counted() -> None:
    answer: list[object] = [None, 5, "x", [], {}, {"job_id": None}, {"job_id": {"a": 1}}]
    assert read_jobs([*answer, {"job_id": "a", "status": "RUNNING"}]).unreadable == len(answer)


def test_client_list_is_read_entry_by_entry() -> None:
    clients = read_client_list(
        [
            {"name": "Trust_1", "status": "started", "last_connect_time": 3},
            {"name": 5},
            7,
            None,
            {"name": 17, "status": "no_jobs"},
            {"name": True, "status": "no_jobs"},
        ]
    )
    assert [(c.name, c.online) for c in clients] == [("Trust_1", True), ("17", True)]


@pytest.mark.parametrize("answer", [None, {"detail": "no"}, "x", 5])
def test_an_answer_that_is_no_list_is_an_error(answer: object) -> None:
    with pytest.raises(Invalid, match="not a list"):
        read_job_list(answer)
    with pytest.raises(Invalid, match="not a list"):
        read_client_list(answer)


def test_shipped_base_template_of_the_embedded_engine() -> None:
    for job_type in fl.JobRequiredFiles.get_all_job_types_with_files(fl.FLBackend.EMBEDDED):
        engine = json.loads((fl.ASSETS_DIR / "embedded" / job_type / "engine.json").read_bytes())
        assert engine == {
            "format": 1,
            "entrypoint": "app/trainer.py",
            "config": "app/config.json",
        }


def test_a_status_word_that_nobody_knows_can_be_stored() -> None:
    (run,) = read_jobs([{"job_id": "a", "status": "\ud800BA\0NANA"}]).runs
    assert run.status is None
    assert run.word == "?BANANA"
