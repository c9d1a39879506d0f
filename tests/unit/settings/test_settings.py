"""Settings that can't work together are named before anything starts, all at once and with the fix."""

from __future__ import annotations

import os
from pathlib import Path

import asyncpg
import pytest

from service.errors import Invalid, ServiceError, Transient
from service.settings import KafkaSettings, load
from service.store.database import connecting


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [n for n in os.environ if n.startswith("FL_") and not n.startswith("FL_TEST")]:
        monkeypatch.delenv(name)


def refused(monkeypatch: pytest.MonkeyPatch, **variables: str) -> list[str]:
    """The lines of the one error that these variables lead to."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(Invalid) as told:
        load()
    return told.value.message.splitlines()[1:]


@pytest.mark.parametrize(
    ("variables", "named"),
    [
        ({"FL_KAFKA__BOOTSTRAP_SERVERS": "broker:port"}, "FL_KAFKA__BOOTSTRAP_SERVERS"),
        ({"FL_KAFKA__BOOTSTRAP_SERVERS": ""}, "FL_KAFKA__BOOTSTRAP_SERVERS"),
        ({"FL_KAFKA__SSL_KEYFILE": "/a/key"}, "FL_KAFKA__SSL_CERTFILE"),
        ({"FL_DATABASE__DSN": "localhost"}, "FL_DATABASE__DSN"),
        ({"FL_S3__ENDPOINT_URL": ""}, "FL_S3__ENDPOINT_URL"),
        ({"FL_S3__ENDPOINT_URL": "garbage"}, "FL_S3__ENDPOINT_URL"),
        ({"FL_S3__ENDPOINT_URL": "http://h:99999"}, "FL_S3__ENDPOINT_URL"),
        ({"FL_S3__PRESIGN_ENDPOINT_URL": "s3.example"}, "FL_S3__PRESIGN_ENDPOINT_URL"),
        ({"FL_STEPS__RENEW_SECONDS": "6"}, "FL_STEPS__RENEW_SECONDS"),
        ({"FL_LIMITS__BACKOFF_SECONDS": "301"}, "FL_LIMITS__BACKOFF_MAX_SECONDS"),
        ({"FL_RETENTION__JOBS_DAYS": "401"}, "FL_RETENTION__JOB_IDS_DAYS"),
        ({"FL_SECRETS_DIR": "/no/such/folder"}, "FL_SECRETS_DIR"),
    ],
)
def test_what_cannot_work_is_named(
    variables: dict[str, str], named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (line,) = refused(monkeypatch, **variables)
    assert line.strip().startswith(f"{named}: ")


def test_all_are_named_together(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = refused(
        monkeypatch,
        FL_KAFKA__SECURITY_PROTOCOL="SASL_PLAINTEXT",
        FL_STEPS__RENEW_SECONDS="10",
        FL_LIMITS__BACKOFF_MAX_SECONDS="1",
        FL_HTTP__PORT="many",
        FL_SECRETS_DIR="/no/such/folder",
    )
    assert {line.strip().split(":")[0] for line in lines} == {
        "FL_SECRETS_DIR",
        "FL_KAFKA__SASL_USERNAME",
        "FL_KAFKA__SASL_PASSWORD",
        "FL_LIMITS__BACKOFF_MAX_SECONDS",
        "FL_STEPS__RENEW_SECONDS",
        "FL_HTTP__PORT",
    }


def test_a_section_that_is_no_json_is_no_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    (line,) = refused(monkeypatch, FL_KAFKA="localhost")
    assert "kafka" in line


def test_what_works_is_taken(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "fl_kafka__sasl_password").write_text("secret")
    for name, value in {
        "FL_KAFKA__SECURITY_PROTOCOL": "SASL_SSL",
        "FL_KAFKA__SASL_USERNAME": "me",
        "FL_KAFKA__BOOTSTRAP_SERVERS": "one:9092, two:9092,[::1]:9092,three",
        "FL_S3__ENDPOINT_URL": "https://s3.example",
        "FL_DATABASE__DSN": "postgres:///fl?host=/run/postgresql",
        "FL_SECRETS_DIR": str(tmp_path),
    }.items():
        monkeypatch.setenv(name, value)
    settings = load()
    assert settings.kafka.sasl_password is not None
    assert settings.kafka.sasl_password.get_secret_value() == "secret"


async def test_a_client_that_can_not_be_made_is_no_value_error() -> None:
    from service.kafka.clients import admin, consumer

    bad = KafkaSettings().model_copy(update={"security_protocol": "SASL_PLAINTEXT"})
    with pytest.raises(Invalid, match="FL_KAFKA__"):
        async with admin(bad):
            pass
    with pytest.raises(Invalid, match="FL_KAFKA__"):
        consumer(bad)


@pytest.mark.parametrize(
    ("raised", "family", "told"),
    [
        (
            asyncpg.exceptions.InvalidAuthorizationSpecificationError('role "x" does not exist'),
            Transient,
            'role "x" does not exist',
        ),
        (
            asyncpg.exceptions.InvalidCatalogNameError('database "x" does not exist'),
            Transient,
            'database "x" does not exist',
        ),
        (asyncpg.exceptions.InvalidPasswordError("no"), Transient, "no"),
        (asyncpg.exceptions.InsufficientPrivilegeError("denied"), Transient, "denied"),
        (asyncpg.exceptions.ClientConfigurationError("invalid DSN"), Invalid, "invalid DSN"),
        (ValueError("secret"), Invalid, "can't be read"),
    ],
)
def test_what_the_database_refuses_names_the_setting(
    raised: Exception, family: type[ServiceError], told: str
) -> None:
    with pytest.raises(family) as said, connecting():
        raise raised
    assert "FL_DATABASE__DSN" in said.value.message
    assert told in said.value.message
    assert "secret" not in said.value.message
