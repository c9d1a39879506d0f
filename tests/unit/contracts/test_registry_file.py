"""The registry file: all errors at once with their places, and back to the same structure."""

from __future__ import annotations

import json
from uuid import UUID

import pytest

from service.contracts import registry_file
from service.contracts.wire.problems import ContractViolation
from service.domain.enums import FLBackend

A = "8a6c0000-0000-4000-8000-000000000001"
B = "8a6c0000-0000-4000-8000-000000000002"
GOOD = f"""
trusts:
  - {{id: {A}, name: North Hospital, code: NH}}
  - {{id: {B}, name: South Hospital}}
nets:
  - name: net-1
    fl_backend: flower
    endpoint: http://127.0.0.1:8101/
    capacity: 2
    gpus: 1
    gpu_memory_gib: 40
    path_id: model
    members: {{{A}: Trust_1, {B}: Trust_2}}
    timeouts: {{upload: 900, submit: 120.5}}
    poll_seconds: 5
    auth: {{kind: bearer, token_file: /run/secrets/net-1}}
    encrypt_cohort_query: true
    selects_clients: true
    strays: abort
  - {{name: net-2, id: {B}, fl_backend: embedded, endpoint: "https://[::1]:8102/api", members: {{{A}: S}}}}
projects:
  - {{id: p1, approved_trusts: [{A}], max_running_jobs: 4, max_priority: 7, on_revocation: finish}}
unlisted_projects: allow
"""


def _told(text: str) -> dict[tuple[str | int, ...], str]:
    with pytest.raises(ContractViolation) as caught:
        registry_file.load(text)
    return {p.loc: p.type for p in caught.value.problems}


def test_file_becomes_registry() -> None:
    registry = registry_file.to_registry(registry_file.load(GOOD), 7)
    net = registry.nets["net-1"]
    assert registry.version == 7
    assert net.id == registry_file.net_id("net-1") != registry_file.net_id("net-2")
    assert registry.nets["net-2"].id == UUID(B)
    assert net.backend is FLBackend.FLOWER
    assert net.endpoint == "http://127.0.0.1:8101"
    assert net.members == {UUID(A): "Trust_1", UUID(B): "Trust_2"}
    assert (net.capacity, net.gpus, net.gpu_memory_gib, net.path_id) == (2, 1, 40, "model")
    assert net.options == {
        "encrypt_cohort_query": True,
        "timeouts": {"upload": 900.0, "submit": 120.5},
        "auth": {"kind": "bearer", "token_file": "/run/secrets/net-1"},
    }
    assert registry.approved("p1", UUID(A))
    assert not registry.approved("p1", UUID(B))
    assert registry.approved("anything", UUID(B))


def test_net_ids_never_change() -> None:
    assert str(registry_file.net_id("net-1")) == "982810f3-2c5c-5640-af26-dd49a01b6024"


def test_document_is_the_file_again() -> None:
    file = registry_file.load(GOOD)
    shown = registry_file.document(file)
    assert registry_file.parse(json.loads(json.dumps(shown))) == file
    assert registry_file.load(json.dumps(shown)) == file


def test_empty_file_is_an_empty_registry() -> None:
    registry = registry_file.to_registry(registry_file.load(""), 0)
    assert registry.nets == {}
    assert registry.unlisted_projects == "reject"


def test_all_errors_at_once() -> None:
    told = _told(
        f"""
trusts:
  - {{id: {A}, name: North}}
  - {{id: {A.upper()}, name: Again}}
  - {{id: nonsense, name: ""}}
nets:
  - {{name: "net 1", fl_backend: spark, endpoint: "ftp://x", capacity: 0, members: {{{B}: s, {A}: s}}}}
  - {{name: n, fl_backend: flower, endpoint: "http://h:1", members: {{{A}: s}}, colour: red}}
  - {{name: n, fl_backend: flower, endpoint: "http://H:1/", members: {{}}}}
projects:
  - {{id: 5, approved_trusts: [{B}]}}
  - {{id: p, approved_trusts: [{A}, {A}], max_priority: 10}}
unlisted_projects: maybe
nodes: []
"""
    )
    assert told.keys() >= {
        ("trusts", 1, "id"),
        ("trusts", 2, "id"),
        ("trusts", 2, "name"),
        ("nets", 0, "name"),
        ("nets", 0, "fl_backend"),
        ("nets", 0, "endpoint"),
        ("nets", 0, "capacity"),
        ("nets", 0, "members", B),
        ("nets", 0, "members", A),
        ("nets", 1, "colour"),
        ("nets", 2, "name"),
        ("nets", 2, "endpoint"),
        ("nets", 2, "members"),
        ("projects", 0, "id"),
        ("projects", 0, "approved_trusts", 0),
        ("projects", 1, "approved_trusts", 1),
        ("projects", 1, "max_priority"),
        ("unlisted_projects",),
        ("nodes",),
    }


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("trusts: [", "line 1"),
        ("trusts: []\ntrusts: []\n", "twice"),
        ("- a\n- b\n", "dictionary"),
        ("trusts: 5", "list"),
        ("a: !!python/object:os.system {}", "YAML"),
        ("\x00", "YAML"),
    ],
)
def test_unreadable_files_say_what_and_where(text: str, says: str) -> None:
    with pytest.raises(ContractViolation, match=says):
        registry_file.load(text)


def test_endpoints_hold_no_credentials() -> None:
    told = _told(
        f"trusts: [{{id: {A}, name: N}}]\nnets:\n"
        f" - {{name: n, fl_backend: flower, endpoint: 'http://u:p@h/', members: {{{A}: s}}}}"
    )
    assert ("nets", 0, "endpoint") in told
