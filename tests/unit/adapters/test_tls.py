"""Certificates on both sides: who has none is turned away, replaced files are taken up."""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
import os
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import uuid4

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from service.adapters.breaker import Breaker
from service.adapters.options import NetOptions, TlsFiles
from service.adapters.transport import AdapterRequest, AdapterTransport
from service.domain.enums import FLBackend
from service.domain.registry import Net
from service.errors import Ambiguous, Transient

POST = AdapterRequest("submit", "/submit_job/x", 3.0, method="POST")


class Authority:
    """A certificate authority of one test's own, and what it signs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.cert = self._sign("authority", self.key, authority=True)
        self.file = folder / "ca.pem"
        self.file.write_bytes(self.cert.public_bytes(serialization.Encoding.PEM))

    def _sign(
        self, name: str, key: ec.EllipticCurvePrivateKey, *, authority: bool = False
    ) -> x509.Certificate:
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        issuer = subject if authority else self.cert.subject
        now = datetime.datetime.now(datetime.UTC)
        usage = x509.KeyUsage(
            digital_signature=True,
            content_commitment=False,
            key_encipherment=False,
            data_encipherment=False,
            key_agreement=False,
            key_cert_sign=authority,
            crl_sign=authority,
            encipher_only=False,
            decipher_only=False,
        )
        own = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
        above = x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key())
        address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(hours=1))
            .add_extension(x509.BasicConstraints(authority, None), critical=True)
            .add_extension(usage, critical=True)
            .add_extension(own, critical=False)
            .add_extension(above, critical=False)
            .add_extension(x509.SubjectAlternativeName([address]), critical=False)
            .sign(self.key, hashes.SHA256())
        )

    def issue(self, name: str) -> tuple[Path, Path]:
        """Certificate and key files for `name`."""
        key = ec.generate_private_key(ec.SECP256R1())
        cert_file, key_file = self.folder / f"{name}.pem", self.folder / f"{name}.key"
        cert_file.write_bytes(self._sign(name, key).public_bytes(serialization.Encoding.PEM))
        key_file.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        return cert_file, key_file


@asynccontextmanager
async def server(authority: Authority) -> AsyncIterator[tuple[str, list[str]]]:
    """An adapter that asks for a certificate: its URL, and the names that came."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*authority.issue("server"))
    context.load_verify_locations(authority.file)
    context.verify_mode = ssl.CERT_REQUIRED
    came: list[str] = []

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = writer.get_extra_info("peercert")
        came.append(peer["subject"][0][0][1])
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\n[]")
        await writer.drain()
        writer.close()

    running = await asyncio.start_server(connected, "127.0.0.1", 0, ssl=context)
    try:
        yield f"https://127.0.0.1:{running.sockets[0].getsockname()[1]}", came
    finally:
        running.close()
        await running.wait_closed()


def link(endpoint: str, tls: TlsFiles | None) -> AdapterTransport:
    net = Net("n", uuid4(), FLBackend.EMBEDDED, endpoint, {})
    return AdapterTransport(net, NetOptions(tls=tls), breaker=Breaker("n"))


async def test_a_client_certificate_is_shown_and_replaced_files_are_taken_up(
    tmp_path: Path,
) -> None:
    authority = Authority(tmp_path)
    first, second = authority.issue("first"), authority.issue("second")
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    cert.write_bytes(first[0].read_bytes())
    key.write_bytes(first[1].read_bytes())
    async with server(authority) as (url, came):
        one = link(url, TlsFiles(cert, key, authority.file))
        await one.send(POST)
        cert.write_bytes(second[0].read_bytes())
        key.write_bytes(second[1].read_bytes())
        os.utime(cert, (1, 1))
        await one.send(POST)
        assert came == ["first", "second"]
        await one.close()


async def test_an_adapter_of_an_unknown_authority_is_not_spoken_to(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    authority, other = Authority(tmp_path), Authority(tmp_path / "other")
    async with server(authority) as (url, came):
        for tls in (None, TlsFiles(*authority.issue("client"), other.file)):
            one = link(url, tls)
            with pytest.raises(Transient) as refused:
                await one.send(POST)
            assert not isinstance(refused.value, Ambiguous)
            await one.close()
        assert came == []


async def test_unusable_certificate_files_are_named(tmp_path: Path) -> None:
    tls = TlsFiles(tmp_path / "no.pem", tmp_path / "no.key")
    one = link("https://127.0.0.1:9", tls)
    with pytest.raises(Transient, match="certificate files"):
        await one.send(POST)
    await one.close()
