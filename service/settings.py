"""Every setting, read once from the environment (`FL_` and `__` for nesting) or a secrets directory.

All errors are raised together, each naming its variable. A room takes its own section; only `app` and
`cli` load the whole. `FL_SECRETS_DIR` names a directory with one file per variable (lower case).
"""

from __future__ import annotations

import difflib
import os
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, model_validator
from pydantic_settings import (
    BaseSettings,
    NestedSecretsSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from service.contracts import fl
from service.contracts.package_data import data_path
from service.errors import Invalid

PREFIX = "FL_"
Seconds = Annotated[float, Field(gt=0, le=31_536_000)]


class Section(BaseModel):
    """Settings of one part, each with its description below it."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    def conflicts(self) -> Iterator[str]:
        """What no single value shows: each begins with the variable's name and says how to fix it."""
        yield from ()

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if found := list(self.conflicts()):
            raise ValueError("\n  ".join(found))
        return self


class KafkaSettings(Section):
    """The brokers, and the topics that the service makes. Topics that are there keep what they have."""

    bootstrap_servers: str = "127.0.0.1:9092"
    """Brokers as `host:port`, several with commas between them."""
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    """How brokers are spoken to."""
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = "PLAIN"
    """How the user is proved, with SASL."""
    sasl_username: str | None = None
    """The user; needed with SASL."""
    sasl_password: SecretStr | None = None
    """The user's password; needed with SASL."""
    ssl_cafile: Path | None = None
    """Who signed the brokers' certificates; left out: the system's own list."""
    ssl_certfile: Path | None = None
    """Our certificate, where brokers ask for one."""
    ssl_keyfile: Path | None = None
    """The key of our certificate."""
    topic_prefix: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]*$", max_length=100)] = ""
    """Put before every topic's name, so that several services share one broker."""
    group_id: Annotated[str, Field(min_length=1, max_length=200)] = "fl-job-service"
    """The consumer group: the same in all processes of one service."""
    group_instance_id: str | None = None
    """A name for this process alone: a killed consumer is back at once under it."""
    partitions: Annotated[int, Field(ge=1, le=1_000)] = 12
    """Partitions of each topic that the service makes."""
    replication_factor: Annotated[int, Field(ge=1, le=10)] = 1
    """Copies of each topic that the service makes."""
    session_timeout_ms: Annotated[int, Field(ge=1_000, le=300_000)] = 10_000
    """A consumer that is silent for so long loses its partitions to another."""
    requests_retention_hours: Annotated[int, Field(ge=1)] = 7 * 24
    """How long requests stay on their topic."""
    status_retention_hours: Annotated[int, Field(ge=1)] = 7 * 24
    """How long runs' reports stay on their topic."""
    lifecycle_retention_hours: Annotated[int, Field(ge=1)] = 30 * 24
    """How long lifecycle events stay on their topic."""
    dead_letter_retention_hours: Annotated[int, Field(ge=1)] = 14 * 24
    """How long dead letters stay on their topics."""

    def conflicts(self) -> Iterator[str]:
        for server in self.bootstrap_servers.split(","):
            if not _has_host(server.strip()):
                yield (
                    f"FL_KAFKA__BOOTSTRAP_SERVERS: {server.strip()!r} is no address: host:port, several "
                    "with commas between them"
                )
        if self.security_protocol.startswith("SASL"):
            password = self.sasl_password and self.sasl_password.get_secret_value()
            for name, value in (("USERNAME", self.sasl_username), ("PASSWORD", password)):
                if not value:
                    cause = f"FL_KAFKA__SECURITY_PROTOCOL={self.security_protocol} needs it"
                    yield f"FL_KAFKA__SASL_{name}: is missing, and {cause}"
        if self.ssl_keyfile and not self.ssl_certfile:
            yield "FL_KAFKA__SSL_CERTFILE: is missing, and FL_KAFKA__SSL_KEYFILE is of no use without it"


class DatabaseSettings(Section):
    """The PostgreSQL database that holds everything: jobs, events, offsets."""

    dsn: SecretStr = SecretStr("postgresql://fl@127.0.0.1:5432/fl")
    """Where the database is: `postgresql://user:password@host:port/database`."""
    pool_size: Annotated[int, Field(ge=2, le=100)] = 12
    """Connections of one process, at most."""
    command_timeout_seconds: Seconds = 30.0
    """How long one statement may take."""

    def conflicts(self) -> Iterator[str]:
        # The value itself is never shown: it may hold a password.
        if not self.dsn.get_secret_value().startswith(("postgresql://", "postgres://")):
            yield "FL_DATABASE__DSN: must be postgresql://user:password@host:port/database"


class S3Settings(Section):
    """The object store, and its four buckets. Credentials come by AWS's own chain."""

    endpoint_url: str | None = None
    """Address of the object store; left out: AWS's own."""
    presign_endpoint_url: str | None = None
    """Address under which nets reach the object store, for the addresses that they are given; left out: the
    service's own, on AWS the bucket's host in its region."""
    region: str = "us-east-1"
    """Its region."""
    model_files_bucket: str = "model-files"
    """What researchers upload, by model id."""
    app_base_bucket: str = "app-base"
    """Base templates of job types."""
    app_destination_bucket: str = "app-bundles"
    """Staged bundles, by job."""
    results_bucket: str = "results"
    """Results, by job and attempt."""
    presigned_seconds: Annotated[int, Field(ge=60, le=604_800)] = 3_600
    """How long a net may fetch a bundle with the addresses it was given."""
    max_bundle_bytes: Annotated[int, Field(ge=1)] = 5 * 2**30
    """A model with more bytes fails its job."""
    max_bundle_files: Annotated[int, Field(ge=1)] = 10_000
    """A model with more files fails its job."""

    def conflicts(self) -> Iterator[str]:
        for name, url, otherwise in (
            ("ENDPOINT_URL", self.endpoint_url, "AWS's own"),
            ("PRESIGN_ENDPOINT_URL", self.presign_endpoint_url, "FL_S3__ENDPOINT_URL"),
        ):
            if url is not None and not _is_http_url(url):
                yield (
                    f"FL_S3__{name}: {url!r} is no address: http://host:port or https://host; "
                    f"leave the variable out for {otherwise}"
                )


class EncryptionSettings(Section):
    """What adapters are told of a project."""

    aes_key_base64: SecretStr | None = None
    """32 bytes in base64, the adapters' key: project ids go to them encrypted, cohort queries by registry."""


class IngestSettings(Section):
    """How inbound records are read."""

    max_batch_records: Annotated[int, Field(ge=1, le=10_000)] = 2_000
    """Records of one transaction, at most."""
    max_batch_bytes: Annotated[int, Field(ge=1_024)] = 4 * 2**20
    """Bytes of one transaction, at most."""
    max_undecodable_ratio: Annotated[float, Field(ge=0, le=1)] = 0.9
    """The consumer stops when more of a partition's last 1,000 records can't be decoded; 0: never."""
    parked_seconds: Seconds = 86_400.0
    """How long a stop or a report waits for its job."""


class LimitSettings(Section):
    """How long a job may wait for its net, and how it is tried again."""

    pending_seconds: Seconds = 3_600.0
    """A run that its net does not start within this fails its job."""
    runtime_seconds: Seconds = 86_400.0
    """A longer run fails its job; `max_runtime_seconds` of a request goes before."""
    stall_seconds: Seconds = 7_200.0
    """A run without progress for so long fails its job; `max_stall_seconds` of a request goes before."""
    submit_unknown_seconds: Seconds = 300.0
    """How long the outcome of a lost submit is looked for before the job fails."""
    collect_seconds: Seconds = 259_200.0
    """How long results are fetched again before the job fails: a net may be away over a weekend."""
    collect_tries: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    """Tries to fetch results before the job fails, whatever the time; left out: as many as fit."""
    missing_lists: Annotated[int, Field(ge=1, le=100)] = 3
    """Lists of a net in a row without the run before the run counts as lost."""
    missing_grace_seconds: Seconds = 30.0
    """And the run must be missing for at least so long."""
    net_gone_seconds: Seconds = 300.0
    """How long a stop waits for a net that left the registry."""
    backoff_seconds: Seconds = 5.0
    """Before the first retry; the pause doubles with each."""
    backoff_max_seconds: Seconds = 300.0
    """Before any retry, at most."""

    def conflicts(self) -> Iterator[str]:
        if self.backoff_max_seconds < self.backoff_seconds:
            yield (
                f"FL_LIMITS__BACKOFF_MAX_SECONDS: {self.backoff_max_seconds:g} must be at least "
                f"FL_LIMITS__BACKOFF_SECONDS, {self.backoff_seconds:g}"
            )


class StepSettings(Section):
    """How the loops pace themselves, and how many jobs they work on."""

    workers: Annotated[int, Field(ge=1, le=1_000)] = 32
    """Jobs prepared and submitted at once by one process."""
    lease_seconds: Seconds = 10.0
    """A process that died loses its jobs to another after this."""
    renew_seconds: Seconds = 3.0
    """Between two renewals of leases; at most half of the lease."""
    poll_seconds: Seconds = 1.0
    """Between two lists of a net that has runs."""
    idle_poll_seconds: Seconds = 5.0
    """Between two looks at a net without runs."""
    claim_poll_seconds: Seconds = 0.5
    """Between two looks for a job to start, when nothing wakes the service."""
    sweep_seconds: Seconds = 1.0
    """Between two sweeps over limits and parked records."""
    fence_wait_seconds: Annotated[float, Field(ge=0, le=3_600)] = 15.0
    """Between the two looks that show that a lost submit left nothing behind."""

    def conflicts(self) -> Iterator[str]:
        # One renewal may come late or fail, and the lease must still hold.
        if self.renew_seconds > self.lease_seconds / 2:
            yield (
                f"FL_STEPS__RENEW_SECONDS: {self.renew_seconds:g} must be at most half of "
                f"FL_STEPS__LEASE_SECONDS, {self.lease_seconds:g}"
            )


class RetentionSettings(Section):
    """How long the database keeps what is over."""

    jobs_days: Annotated[int, Field(ge=1)] = 90
    """How long finished jobs and their events are kept."""
    inbound_ids_days: Annotated[int, Field(ge=1)] = 30
    """How long event ids are kept against duplicates."""
    job_ids_days: Annotated[int, Field(ge=1)] = 400
    """How long ids of forgotten jobs are kept, so that they do not train again."""
    dead_letters_days: Annotated[int, Field(ge=1)] = 14
    """How long published dead letters are kept in the database."""

    def conflicts(self) -> Iterator[str]:
        # An id that is forgotten before its job would let the same request train again.
        if self.job_ids_days < self.jobs_days:
            yield (
                f"FL_RETENTION__JOB_IDS_DAYS: {self.job_ids_days} must be at least "
                f"FL_RETENTION__JOBS_DAYS, {self.jobs_days}"
            )


class HttpSettings(Section):
    """The web port."""

    host: str = "127.0.0.1"
    """Where probes, metrics and the read-only API listen."""
    port: Annotated[int, Field(ge=0, le=65_535)] = 8080
    """Their port; 0: any free one, which the log line `web_listens` names."""


class LogSettings(Section):
    """What the service says of itself, on standard error."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    """The least that is logged."""
    format: Literal["auto", "json", "console"] = "auto"
    """`auto`: `console` on a terminal, else `json`."""


def _has_host(server: str) -> bool:
    """Is this `host` or `host:port`?"""
    try:
        parts = urlsplit(f"//{server}")
        return bool(parts.hostname) and parts.port != 0 and parts.netloc == server
    except ValueError:
        return False


def _is_http_url(url: str) -> bool:
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and bool(host) and not any(map(str.isspace, url))


class Settings(BaseSettings):
    """The whole. Build it with `load`."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_nested_delimiter="__",
        frozen=True,
        extra="ignore",
        use_attribute_docstrings=True,
    )

    kafka: KafkaSettings = KafkaSettings()
    database: DatabaseSettings = DatabaseSettings()
    s3: S3Settings = S3Settings()
    encryption: EncryptionSettings = EncryptionSettings()
    ingest: IngestSettings = IngestSettings()
    limits: LimitSettings = LimitSettings()
    steps: StepSettings = StepSettings()
    retention: RetentionSettings = RetentionSettings()
    http: HttpSettings = HttpSettings()
    log: LogSettings = LogSettings()
    registry_file: Path | None = None
    """A registry applied by `migrate`, and by `run` at each start, as `registry apply` would."""
    relay_accept_log: bool = False
    """The relay goes on from what the log holds, as `run --accept-log`. Take it out again."""
    assets_dir: Path = Field(default_factory=lambda: data_path("assets"))
    """Folder of the backends' manifests and base templates; left out: those of the package."""
    secrets_dir: Path | None = None
    """Folder with one file per variable, named in lower case, such as `fl_database__dsn`."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        # The plain source would look for whole sections only, and pass over fl_database__dsn in silence.
        secrets = NestedSecretsSettingsSource(
            file_secret_settings, secrets_dir_missing="error", secrets_nested_delimiter="__"
        )
        return init_settings, env_settings, secrets


def read_env_file(path: Path) -> dict[str, str]:
    """`KEY=value` lines of a file as `local up` writes it; a value may stand in a shell's quotes.

    Raises Invalid when it can't be read.
    """
    try:
        text = path.read_text("utf-8")
    except OSError as exc:
        raise Invalid(f"the settings file {path} can't be read: {exc.strerror}") from exc
    found: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        key, equals, value = line.partition("=")
        if not equals:
            raise Invalid(f"{path}, line {number}: expected KEY=value")
        value = value.strip()
        if value[:1] in ("'", '"'):
            try:
                value = "".join(shlex.split(value))
            except ValueError as exc:
                raise Invalid(f"{path}, line {number}: {key.strip()}: {exc}") from exc
        found[key.strip()] = value
    return found


def load(env_file: Path | None = None, **overrides: Any) -> Settings:
    """The settings of this process. What stands in `env_file` yields to the environment; it is also put
    into the environment, since the AWS chain reads its credentials there. The contracts read their
    manifests from `assets_dir` from here on.

    Raises Invalid naming every bad variable.
    """
    if env_file is not None:
        for key, value in read_env_file(env_file).items():
            os.environ.setdefault(key, value)
    secrets = overrides.get("secrets_dir") or os.environ.get("FL_SECRETS_DIR") or None
    lost = secrets is not None and not Path(secrets).is_dir()
    problems = [f"FL_SECRETS_DIR: there is no folder {secrets}"] if lost else []
    try:
        settings = Settings(_secrets_dir=None if lost else secrets, **overrides)
    except ValidationError as exc:
        raise Invalid(_unusable(problems + _explain(exc))) from exc
    except SettingsError as exc:
        # A section as a whole that is no JSON, such as FL_KAFKA=localhost.
        raise Invalid(_unusable([*problems, f"{exc}; use FL_<SECTION>__<NAME>"])) from exc
    if problems:
        raise Invalid(_unusable(problems))
    fl.ASSETS_DIR = settings.assets_dir
    return settings


def _unusable(problems: list[str]) -> str:
    return "the settings are not usable:\n  " + "\n  ".join(problems)


def _explain(exc: ValidationError) -> list[str]:
    lines = []
    for error in exc.errors(include_url=False, include_input=False):
        name = f"{PREFIX}{'__'.join(str(part) for part in error['loc'])}".upper()
        message = error["msg"]
        if error["type"] == "value_error" and len(error["loc"]) == 1:
            lines.append(str(error["ctx"]["error"]))
            continue
        if error["type"] == "extra_forbidden":
            near = difflib.get_close_matches(name, _variables(), n=1)
            message = "there is no such setting" + (f"; is {near[0]} meant?" if near else "")
        lines.append(f"{name}: {message}")
    return lines


def _variables() -> set[str]:
    """The names of all variables that are settings, sections included."""
    known = {f"{PREFIX}{name}".upper() for name in Settings.model_fields}
    return known | {
        f"{PREFIX}{section}__{name}".upper()
        for section, field in Settings.model_fields.items()
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section)
        for name in field.annotation.model_fields
    }


def unknown_variables(environment: Mapping[str, str]) -> list[str]:
    """FL_ variables that no setting reads, most likely misspelt: for `doctor`."""
    known = _variables()
    own = {"FL_FAULTPOINT", "FL_SECRETS_DIR"}
    return sorted(k for k in environment if k.startswith(PREFIX) and k not in known | own)
