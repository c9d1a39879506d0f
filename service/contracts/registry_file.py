"""The registry file: the operator's decisions about trusts, nets and projects, as YAML or JSON.

Promise: a file that `load` accepts names every trust it uses, names nothing twice, and gives every
net one adapter of its own; one that it refuses is answered with all errors at once, each with its
place in the file. `document` gives back the file's structure, so that what is stored and what
`registry show --json` prints can be applied again. Secrets are named by file, never held here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Annotated, Any, Final, Literal
from uuid import NAMESPACE_URL, UUID, uuid5

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from service.contracts.fl import INetDetails
from service.contracts.wire.fields import Uuid, text
from service.contracts.wire.problems import ContractViolation, from_pydantic, problem, with_message
from service.domain.registry import Net, Project, Registry, Trust
from service.domain.values import Problem

#: A net without an `id` has uuid5 of this namespace and its name. Fixed for ever.
NET_NAMESPACE: Final = uuid5(NAMESPACE_URL, "urn:fl-job-service:net")

_CLOSED: Final = ConfigDict(extra="forbid")
_ENDPOINT: Final = with_message(
    r"^https?://[A-Za-z0-9.\-\[\]:]+(/[A-Za-z0-9._~/\-]*)?$",
    "Should be http(s)://host[:port][/path] without credentials and query",
)
_NAME: Final = with_message(
    r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$",
    "Should be 1 to 63 letters, digits, dots, dashes and underscores, a letter or digit first",
)

_RESULTS: Final = with_message(
    r"^[a-z][a-z0-9+.-]*://[^\s/?#]+/(\S*/)?$",
    "Should be the beginning of a URI that ends with a slash, such as s3://bucket/folder/",
)

ResultsPlace = Annotated[str, Field(strict=True, max_length=2_048, pattern=_RESULTS)]
Text128 = Annotated[str, text(128)]
FilePath = Annotated[str, text(4_096)]
Seconds = Annotated[float, Field(gt=0, le=86_400, allow_inf_nan=False)]


class TrustEntry(BaseModel):
    """A hospital site. Its id is what requests name; the name is for people."""

    model_config = _CLOSED

    id: Uuid
    name: Text128
    code: Annotated[str, text(32)] | None = None


class TimeoutsEntry(BaseModel):
    """Time limits in seconds of calls to a net's adapter; one left out has the service's default."""

    model_config = _CLOSED

    health: Seconds | None = None
    list: Seconds | None = None
    clients: Seconds | None = None
    upload: Seconds | None = None
    submit: Seconds | None = None
    abort: Seconds | None = None
    logs: Seconds | None = None
    results: Seconds | None = None


class Bearer(BaseModel):
    """A bearer token, read from a file at every connection."""

    model_config = _CLOSED

    kind: Literal["bearer"]
    token_file: FilePath


class MutualTls(BaseModel):
    """A client certificate, and optionally the authority that signed the adapter's."""

    model_config = _CLOSED

    kind: Literal["mtls"]
    cert_file: FilePath
    key_file: FilePath
    ca_file: FilePath | None = None


class NetEntry(INetDetails):
    """A net: one FL server with its adapter, and the slot of each member trust in its runtime.

    `capacity` is how many jobs it runs at once; `gpus` and `gpu_memory_gib` are the least of its
    sites; `path_id` says what stands as `{model_id}` in the adapter's paths; `results` names where its runs
    may put results themselves.
    """

    model_config = _CLOSED

    name: Annotated[str, Field(strict=True, pattern=_NAME)]
    id: Uuid | None = None
    endpoint: Annotated[str, Field(strict=True, max_length=2_048, pattern=_ENDPOINT)]
    capacity: Annotated[int, Field(strict=True, ge=1, le=1_000)] = 1
    gpus: Annotated[int, Field(strict=True, ge=0, le=1_024)] = 0
    gpu_memory_gib: Annotated[int, Field(strict=True, ge=0, le=65_536)] = 0
    path_id: Literal["attempt", "model"] = "attempt"
    members: dict[Uuid, Text128] = Field(min_length=1, max_length=1_000)
    timeouts: TimeoutsEntry | None = None
    poll_seconds: Seconds | None = None
    results: list[ResultsPlace] = Field(default_factory=list, max_length=32)
    auth: Annotated[Bearer | MutualTls, Field(discriminator="kind")] | None = None
    encrypt_cohort_query: Annotated[bool, Field(strict=True)] = False
    selects_clients: Annotated[bool, Field(strict=True)] = False
    strays: Literal["report", "abort"] = "report"


class ProjectEntry(BaseModel):
    """A project: whose data it may use, and how much of the nets."""

    model_config = _CLOSED

    id: Text128
    approved_trusts: list[Uuid] = Field(max_length=1_000)
    max_running_jobs: Annotated[int, Field(strict=True, ge=0, le=1_000_000)] | None = None
    max_priority: Annotated[int, Field(strict=True, ge=0, le=9)] = 9
    on_revocation: Literal["stop", "finish"] = "stop"


class RegistryFile(BaseModel):
    """The whole file. Projects that it does not list are rejected unless it says `allow`."""

    model_config = _CLOSED

    trusts: list[TrustEntry] = Field(default_factory=list, max_length=10_000)
    nets: list[NetEntry] = Field(default_factory=list, max_length=10_000)
    projects: list[ProjectEntry] = Field(default_factory=list, max_length=100_000)
    unlisted_projects: Literal["reject", "allow"] = "reject"


class _Loader(yaml.SafeLoader):
    """YAML whose mappings name a key once: the usual loader silently keeps the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        named: set[str] = set()
        for key, _value in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in named:
                    raise yaml.constructor.ConstructorError(
                        "while reading a mapping",
                        node.start_mark,
                        "it names a key twice",
                        key.start_mark,
                    )
                named.add(key.value)
        return super().construct_mapping(node, deep)


def load(content: str | bytes) -> RegistryFile:
    """The registry that a file's content stands for.

    Raises:
        BadData: it is no YAML, or breaks a rule; with every error and its place.
    """
    try:
        document = yaml.load(content, Loader=_Loader)
    except yaml.YAMLError as exc:
        raise ContractViolation("registry file", [_yaml_problem(exc)]) from exc
    except (RecursionError, ValueError) as exc:
        raise ContractViolation(
            "registry file", [problem((), "It can't be read as YAML", "yaml")]
        ) from exc
    return parse({} if document is None else document)


def _yaml_problem(exc: yaml.YAMLError) -> Problem:
    mark = exc.problem_mark if isinstance(exc, yaml.MarkedYAMLError) else None
    place = f" at line {mark.line + 1}, column {mark.column + 1}" if mark is not None else ""
    what = (exc.problem if isinstance(exc, yaml.MarkedYAMLError) else None) or "not usable"
    return problem((), f"Not usable as YAML{place}: {what}", "yaml")


def parse(document: object) -> RegistryFile:
    """The registry of a parsed document, for example one that `document` gave.

    Raises:
        BadData: with every error of the entries and of the rules between them.
    """
    found: list[Problem] = []
    registry = None
    try:
        registry = RegistryFile.model_validate(document)
    except ValidationError as exc:
        found = from_pydantic(exc)
    if isinstance(document, Mapping):
        broken = {p.loc for p in found}
        found += [p for p in _between(document) if p.loc not in broken]
    if found or registry is None:
        raise ContractViolation("registry file", found)
    return registry


def _between(document: Mapping[str, Any]) -> Iterator[Problem]:
    """The rules between entries, over the raw document: a broken entry must not hide another error."""
    trusts, nets = _entries(document, "trusts"), _entries(document, "nets")
    projects = _entries(document, "projects")
    known = {_key(entry.get("id")) for _, entry in trusts}
    yield from _twice("trusts", "id", trusts, _key)
    yield from _twice("nets", "name", nets, str)
    yield from _twice("nets", "id", nets, _key)
    yield from _twice("nets", "endpoint", nets, lambda url: str(url).rstrip("/").lower())
    yield from _twice("projects", "id", projects, str)
    for index, net in nets:
        members = net.get("members")
        if isinstance(members, Mapping):
            yield from _member_problems(("nets", index, "members"), members, known)
    for index, project in projects:
        approved = project.get("approved_trusts")
        if isinstance(approved, list):
            yield from _approval_problems(("projects", index, "approved_trusts"), approved, known)


def _entries(document: Mapping[str, Any], name: str) -> list[tuple[int, Mapping[str, Any]]]:
    entries = document.get(name)
    if not isinstance(entries, list):
        return []
    return [(i, entry) for i, entry in enumerate(entries) if isinstance(entry, Mapping)]


def _key(value: object) -> str:
    return str(value).lower()


def _twice(
    section: str,
    field: str,
    entries: Iterable[tuple[int, Mapping[str, Any]]],
    key: Callable[[object], str],
) -> Iterator[Problem]:
    first: dict[str, int] = {}
    for index, entry in entries:
        value = entry.get(field)
        if value is None:
            continue
        if (before := first.setdefault(key(value), index)) != index:
            msg = f"Used already by {section}.{before}: each needs its own"
            yield problem((section, index, field), msg, "duplicate")


def _member_problems(
    loc: tuple[str | int, ...], members: Mapping[Any, Any], known: set[str]
) -> Iterator[Problem]:
    slots: set[str] = set()
    for trust, slot in members.items():
        if _key(trust) not in known:
            yield problem((*loc, str(trust)), "No such trust under 'trusts'", "unknown_trust")
        if str(slot) in slots:
            msg = "Another member of this net has this slot"
            yield problem((*loc, str(trust)), msg, "duplicate")
        slots.add(str(slot))


def _approval_problems(
    loc: tuple[str | int, ...], approved: list[Any], known: set[str]
) -> Iterator[Problem]:
    seen: set[str] = set()
    for index, trust in enumerate(approved):
        if _key(trust) not in known:
            yield problem((*loc, index), "No such trust under 'trusts'", "unknown_trust")
        if _key(trust) in seen:
            yield problem((*loc, index), "This trust is approved already", "duplicate")
        seen.add(_key(trust))


def document(file: RegistryFile) -> dict[str, Any]:
    """The file's structure as JSON values, defaults filled in, what is not given left out."""
    return file.model_dump(mode="json", exclude_none=True)


def net_document(entry: NetEntry) -> dict[str, Any]:
    """A net's entry as JSON values."""
    return entry.model_dump(mode="json", exclude_none=True)


def read_net(document: object) -> Net:
    """The net of an entry that `net_document` gave.

    Raises:
        BadData: it is none.
    """
    try:
        return _net(NetEntry.model_validate(document))
    except ValidationError as exc:
        raise ContractViolation("registry entry", from_pydantic(exc)) from exc


def to_registry(file: RegistryFile, version: int) -> Registry:
    """The domain's registry of this version."""
    return Registry(
        version=version,
        trusts={t.id: Trust(t.id, t.name, t.code) for t in file.trusts},
        nets={net.name: _net(net) for net in file.nets},
        projects={
            p.id: Project(
                p.id,
                frozenset(p.approved_trusts),
                p.max_running_jobs,
                p.max_priority,
                p.on_revocation,
            )
            for p in file.projects
        },
        unlisted_projects=file.unlisted_projects,
    )


def net_id(name: str) -> UUID:
    """The id of a net whose entry gives none."""
    return uuid5(NET_NAMESPACE, name)


def _net(entry: NetEntry) -> Net:
    """A net; `options` holds `timeouts` (seconds by call), `auth`, `encrypt_cohort_query`."""
    options: dict[str, Any] = {"encrypt_cohort_query": entry.encrypt_cohort_query}
    if entry.timeouts is not None:
        options["timeouts"] = entry.timeouts.model_dump(exclude_none=True)
    if entry.auth is not None:
        options["auth"] = entry.auth.model_dump(exclude_none=True)
    return Net(
        name=entry.name,
        id=entry.id or net_id(entry.name),
        backend=entry.fl_backend,
        endpoint=entry.endpoint.rstrip("/"),
        members=dict(entry.members),
        capacity=entry.capacity,
        gpus=entry.gpus,
        gpu_memory_gib=entry.gpu_memory_gib,
        path_id=entry.path_id,
        selects_clients=entry.selects_clients,
        strays=entry.strays,
        poll_seconds=entry.poll_seconds,
        results=tuple(entry.results),
        options=options,
    )
