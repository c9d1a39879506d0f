"""How to reach the broker: the settings that every client needs, turned into aiokafka's arguments.

`Connection` names the attributes that the settings' Kafka section has; nothing else of the settings is
read in this room. Secrets leave here only inside the arguments of a client.
"""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Protocol

from service.errors import Invalid

_PROTOCOL_FIX = "set FL_KAFKA__SECURITY_PROTOCOL to PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL"

PROTOCOLS = frozenset({"PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"})


class Secret(Protocol):
    """A value that does not print itself, such as pydantic's."""

    def get_secret_value(self) -> str: ...


class Connection(Protocol):
    """The settings' Kafka section. Empty text and None both mean: not set."""

    @property
    def bootstrap_servers(self) -> str: ...
    @property
    def security_protocol(self) -> str: ...
    @property
    def sasl_mechanism(self) -> str | None: ...
    @property
    def sasl_username(self) -> str | None: ...
    @property
    def sasl_password(self) -> Secret | str | None: ...
    @property
    def ssl_cafile(self) -> Path | str | None: ...
    @property
    def ssl_certfile(self) -> Path | str | None: ...
    @property
    def ssl_keyfile(self) -> Path | str | None: ...
    @property
    def topic_prefix(self) -> str: ...
    @property
    def group_id(self) -> str: ...
    @property
    def group_instance_id(self) -> str | None: ...


def _plain(value: Secret | str | None) -> str | None:
    if value is None or isinstance(value, str):
        return value or None
    return value.get_secret_value() or None


def _ssl_context(connection: Connection) -> ssl.SSLContext:
    """Made anew for every client, so that rotated certificates are read at the next reconnect."""
    try:
        context = ssl.create_default_context(cafile=connection.ssl_cafile or None)
        if connection.ssl_certfile:
            context.load_cert_chain(
                connection.ssl_certfile,
                connection.ssl_keyfile or None,
            )
    except (OSError, ssl.SSLError) as exc:
        raise Invalid(
            f"the TLS files of FL_KAFKA__SSL_CAFILE, FL_KAFKA__SSL_CERTFILE and FL_KAFKA__SSL_KEYFILE "
            f"can't be loaded: {exc}",
            code="kafka_tls",
        ) from exc
    return context


def client_arguments(connection: Connection) -> dict[str, object]:
    """The arguments that aiokafka's consumer, producer and admin client share.

    Raises errors.Invalid (`kafka_tls`, `kafka_protocol`) when the settings can't work.
    """
    protocol = connection.security_protocol.upper()
    if protocol not in PROTOCOLS:
        raise Invalid(
            f"unknown security protocol {protocol!r}: {_PROTOCOL_FIX}", code="kafka_protocol"
        )
    arguments: dict[str, object] = {
        "bootstrap_servers": connection.bootstrap_servers,
        "security_protocol": protocol,
        "request_timeout_ms": 15_000,
        "metadata_max_age_ms": 60_000,
    }
    if protocol in ("SSL", "SASL_SSL"):
        arguments["ssl_context"] = _ssl_context(connection)
    if protocol.startswith("SASL"):
        arguments["sasl_mechanism"] = connection.sasl_mechanism or "PLAIN"
        arguments["sasl_plain_username"] = connection.sasl_username or None
        arguments["sasl_plain_password"] = _plain(connection.sasl_password)
    return arguments
