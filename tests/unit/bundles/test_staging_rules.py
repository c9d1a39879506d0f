"""What staging decides without a store: names, collisions, the effective config, the bundle's record."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.bundles import model_config, names
from service.bundles.embedded import EmbeddedLayout
from service.bundles.frozen import FrozenFile, freeze, thaw
from service.bundles.layout import FileOrigin, Placed
from service.bundles.names import Location
from service.bundles.staging import check_collisions, check_required
from service.bundles.templates import _template_folders
from service.domain.enums import FLBackend, ReasonCode
from service.domain.values import Origin, Request
from service.errors import Invalid, Permanent, Transient

A, B, C = UUID(int=1), UUID(int=2), UUID(int=3)
SLOTS = {A: "Trust_1", B: "Trust_2"}
MEMBERS = {**SLOTS, C: "Trust_3"}
REQUEST = Request(uuid4(), uuid4(), "p", "q", (A, B), 2, b"", Origin("e", "s"))


# --- names ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    [
        *("../x", "a/../b", "a/..", "./a", "/a", "a//b", "a/", "", "a\\b", "a\0b", "a\nb", "a\x7f"),
        *("a\x85b", "\ud800", "x" * 256, "/".join(["x" * 100] * 9)),
    ],
)
def test_names_that_could_leave_the_folder_or_not_be_stored(path: str) -> None:
    assert names.unsafe(path)
    with pytest.raises(Permanent) as refused:
        names.check_safe(["trainer.py", path])
    assert refused.value.code == ReasonCode.UNSAFE_PATH


@pytest.mark.parametrize("path", ["trainer.py", "a/b/c.txt", "..x", "a..b", "ä ö.py", ".hidden"])
def test_ordinary_names_pass(path: str) -> None:
    assert names.unsafe(path) is None


@given(st.text(max_size=40))
def test_what_passes_stays_below_its_folder(path: str) -> None:
    if names.unsafe(path) is None:
        assert not path.startswith("/")
        assert ".." not in path.split("/")
        assert "\0" not in path


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("models", Location("models")),
        ("s3://models", Location("models")),
        ("models/clean", Location("models", "clean/")),
        ("s3://models/clean/", Location("models", "clean/")),
    ],
)
def test_bucket_settings_may_have_a_prefix(text: str, place: Location) -> None:
    assert names.parse_setting(text) == place
    assert names.parse_setting(place.uri) == place


def test_a_bucket_setting_names_a_bucket() -> None:
    with pytest.raises(Invalid, match="bucket"):
        names.parse_setting("s3:///")


ALLOWED = [Location("models", "clean/"), Location("other")]


@pytest.mark.parametrize(
    "uri", ["s3://models/clean/m1", "s3://models/clean/m1/", "s3://other/x/y/"]
)
def test_sources_below_an_allowed_place(uri: str) -> None:
    assert names.source_from(uri, ALLOWED).uri == uri.rstrip("/") + "/"


@pytest.mark.parametrize(
    "uri",
    [
        *("s3://models/dirty/m1/", "s3://models/clean-too/", "s3://elsewhere/m1/", "s3://models/"),
        *("s3://models/clean/../dirty/", "s3://models//", "https://models/clean/m1", "s3://"),
        *("s3://other/a//b", "models/clean/m1", "s3://other/a\\b/"),
    ],
)
def test_sources_elsewhere_are_refused(uri: str) -> None:
    with pytest.raises(Permanent) as refused:
        names.source_from(uri, ALLOWED)
    assert refused.value.code == ReasonCode.UNSAFE_PATH


# --- config --------------------------------------------------------------------------------------


def effective(own: dict[str, Any], **request: Any) -> dict[str, Any]:
    return model_config.effective(
        replace(REQUEST, **request), own, job_type="standard", slots=SLOTS, members=MEMBERS
    )


def test_the_request_wins_key_by_key() -> None:
    own = {"GLOBAL_ROUNDS": 2, "LOCAL_ROUNDS": 1, "lr": 0.1, "batch": 8}
    got = effective(
        own,
        config={"GLOBAL_ROUNDS": 5, "AGGREGATOR": None, "LOCAL_ROUNDS": None},
        app_config={"lr": 0.5},
    )
    assert got == {"GLOBAL_ROUNDS": 5, "LOCAL_ROUNDS": 1, "lr": 0.5, "batch": 8}
    assert own["lr"] == 0.1


def test_the_app_s_own_keys_pass_untouched() -> None:
    own = {
        "LOCAL_ROUNDS": "many",
        "LOCAL_ROUNDS_x": 2.5,
        "GLOBAL_ROUNDS_x": -1,
        "nested": {"a": []},
    }
    assert effective(own) == own


@pytest.mark.parametrize(
    ("own", "word"),
    [
        *[({"GLOBAL_ROUNDS": value}, "GLOBAL_ROUNDS") for value in (0, 1001, 2.5, 2.0, True, "3")],
        ({"AGGREGATOR": "Median"}, "AGGREGATOR"),
        ({"AGGREGATOR": ["x"]}, "AGGREGATOR"),
        ({"AGGREGATION_WEIGHTS": [1]}, "must be an object"),
        ({"AGGREGATION_WEIGHTS": {"Trust_1": 1.5}}, "0 to 1"),
        ({"AGGREGATION_WEIGHTS": {"Trust_1": True}}, "0 to 1"),
        ({"AGGREGATION_WEIGHTS": {"Trust_1": 10**400}}, "0 to 1"),
        ({"AGGREGATION_WEIGHTS": {"Trust_1": 0, "Trust_2": 0}}, "every participant"),
        ({"AGGREGATION_WEIGHTS": {str(A): 0.1, "Trust_1": 0.2}}, "twice"),
        ({"AGGREGATION_WEIGHTS": {"trust_1": 1}}, "'trust_1'.*none of the net's slots Trust_1"),
        ({"job_type": 3, "GLOBAL_ROUNDS": 0}, "GLOBAL_ROUNDS.*job_type must be text"),
    ],
)
def test_what_a_runtime_would_drop_in_silence_is_an_error(own: dict[str, Any], word: str) -> None:
    with pytest.raises(Permanent, match=word) as refused:
        effective(own)
    assert refused.value.code == ReasonCode.BAD_MODEL_CONFIG


def test_all_that_is_wrong_is_told_at_once() -> None:
    with pytest.raises(Permanent, match=r"GLOBAL_ROUNDS.*AGGREGATOR"):
        effective({"GLOBAL_ROUNDS": 0, "AGGREGATOR": "x"})


def test_what_the_embedded_engine_would_refuse_is_told_beside_it() -> None:
    own = {"GLOBAL_ROUNDS": 0, "LOCAL_ROUNDS": 1.5, "IGNORE_RESULT_ERROR": "no", "AGGREGATOR": "x"}
    with pytest.raises(Permanent) as refused:
        model_config.effective(
            REQUEST,
            own,
            job_type="standard",
            slots=SLOTS,
            members=MEMBERS,
            refused=EmbeddedLayout().refused,
        )
    told = refused.value.message.removeprefix("config.json of the model: ").split("; ")
    assert [problem.split()[0] for problem in told] == list(own)
    assert EmbeddedLayout().refused({"LOCAL_ROUNDS": None, "IGNORE_RESULT_ERROR": True}) == []


def test_weights_speak_of_slots() -> None:
    weights = {str(A): 0.5, "Trust_2": 0.25, str(C): 0, str(uuid4()): 1}
    got = effective({}, config={"AGGREGATION_WEIGHTS": weights})
    assert got["AGGREGATION_WEIGHTS"] == {"Trust_1": 0.5, "Trust_2": 0.25, "Trust_3": 0}
    assert effective(
        {"AGGREGATION_WEIGHTS": {"Trust_1": 0}}, config={"AGGREGATION_WEIGHTS": {}}
    ) == {"AGGREGATION_WEIGHTS": {}}


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[1]",
        b"{",
        b'{"a": NaN}',
        b'{"a": 1e999}',
        b'{"a": 1, "a": 2}',
        b'{"a": ' + b"[" * 40 + b"]" * 40 + b"}",
        b'{"a": "\xff"}',
        b'{"a": "\\ud800"}',
        b"[" * 100_000,
    ],
)
def test_a_config_that_is_no_json_object(body: bytes) -> None:
    with pytest.raises(Permanent) as refused:
        model_config.read(body)
    assert refused.value.code == ReasonCode.BAD_MODEL_CONFIG


def test_the_job_type_comes_from_the_request_the_file_or_is_standard() -> None:
    assert (
        model_config.job_type_of(replace(REQUEST, job_type="fed_opt"), {"job_type": "x"})
        == "fed_opt"
    )
    assert model_config.job_type_of(REQUEST, {"job_type": "evaluation_client_api"}) == "evaluation"
    assert model_config.job_type_of(REQUEST, {"job_type": ""}) == "standard"
    assert model_config.job_type_of(REQUEST, {}) == "standard"
    assert model_config.job_type_of(REQUEST, {"job_type": 3}) == "standard", "it is told below"


# --- required files, layout, collisions ----------------------------------------------------------


def test_every_missing_file_is_named_at_once() -> None:
    with pytest.raises(Permanent, match=r"config\.json, trainer\.py") as refused:
        check_required(FLBackend.EMBEDDED, "standard", {"sub/trainer.py": 1})
    assert refused.value.code == ReasonCode.REQUIRED_FILE_MISSING
    check_required(FLBackend.EMBEDDED, "standard", {"trainer.py": 1, "config.json": 1})


def test_an_unknown_job_type_names_the_known_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Permanent, match="standard") as refused:
        check_required(FLBackend.EMBEDDED, "no-such", {})
    assert refused.value.code == ReasonCode.UNKNOWN_JOB_TYPE
    monkeypatch.setattr("service.contracts.fl._load_job_types_config", lambda _: {})
    with pytest.raises(Transient) as waiting:
        check_required(FLBackend.EMBEDDED, "standard", {})
    assert waiting.value.code == "manifest_unavailable"


def test_the_embedded_layout() -> None:
    placed = EmbeddedLayout().arrange(
        job_type="standard",
        template=["engine.json"],
        files=["config.json", "trainer.py", "lib/config.json"],
        config={"b": 1, "a": "ä"},
    )
    assert {p.destination: p.origin for p in placed} == {
        "engine.json": FileOrigin.TEMPLATE,
        "app/trainer.py": FileOrigin.MODEL,
        "app/lib/config.json": FileOrigin.MODEL,
        "app/config.json": FileOrigin.MADE,
    }
    made = placed[-1].body
    assert json.loads(made) == {"a": "ä", "b": 1}
    assert "ä".encode() in made
    with pytest.raises(Permanent, match=r"engine\.json"):
        EmbeddedLayout().arrange(job_type="standard", template=["x"], files=[], config={})


@pytest.mark.parametrize(
    ("one", "other"), [("app/a.py", "app/a.py"), ("app/a", "app/a/b.py"), ("app", "app/x/y/z")]
)
def test_collisions_name_both(one: str, other: str) -> None:
    plan = [
        Placed(one, FileOrigin.TEMPLATE, "mine.py"),
        Placed(other, FileOrigin.MODEL, "theirs.py"),
    ]
    with pytest.raises(Permanent) as refused:
        check_collisions(plan)
    assert refused.value.code == ReasonCode.FILE_COLLISION
    assert "mine.py of the base template" in refused.value.message
    assert "theirs.py of the model files" in refused.value.message


# --- the record ----------------------------------------------------------------------------------

ENTRIES = [FrozenFile("b", 2, "bb"), FrozenFile("a/ä", 1, "aa")]


def test_the_digest_is_that_of_the_canonical_list() -> None:
    frozen = freeze(ENTRIES, {"x": 1}, "standard")
    listed = '[{"path":"a/ä","sha256":"aa","size":1},{"path":"b","sha256":"bb","size":2}]'
    assert frozen.sha256 == hashlib.sha256(listed.encode()).hexdigest()
    assert freeze(reversed(ENTRIES), {}, "other").sha256 == frozen.sha256


def test_a_record_is_read_back_or_refused() -> None:
    frozen = freeze(ENTRIES, {"x": 1}, "standard")
    assert thaw(frozen.to_bytes(), "here") == frozen
    changed = frozen.to_bytes().replace(b'"size":2', b'"size":3')
    for body in (b"", b"[]", b"{}", changed):
        with pytest.raises(Transient, match="here"):
            thaw(body, "here")
    staged = frozen.staged(Location("dest", "j/1/p/"))
    assert staged.prefix == "s3://dest/j/1/p/"
    assert staged.keys == ("j/1/p/a/ä", "j/1/p/b")


def test_only_backends_have_templates(tmp_path: Path) -> None:
    for name in ("embedded/standard", "demo/__pycache__", "nvflare/fed_opt"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "embedded" / "notes.txt").write_text("no folder")
    found = [path.relative_to(tmp_path).as_posix() for path in _template_folders(tmp_path)]
    assert found == ["embedded/standard", "nvflare/fed_opt"]


def test_settings_that_no_event_could_tell_are_refused() -> None:
    assert effective({"words": "y" * 250_000})
    with pytest.raises(Permanent, match="put large values into a file") as refused:
        effective({"words": "y" * 250_000}, app_config={"more": "z" * 20_000})
    assert refused.value.code == ReasonCode.BAD_MODEL_CONFIG
