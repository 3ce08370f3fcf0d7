"""TLS peers: an authority of the tests' own, files by it, and clients of every kind."""

import asyncio
import socket
import ssl
import warnings
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.x509.oid import NameOID

from provisioning.core import pki
from tests.openssl import Made, made

AUTHORITY = made("Authority")
NOW = datetime.now(UTC)


def leaf(name: str, *hosts: str, by: Made | None = AUTHORITY, **more: Any) -> Made:
    extra = [(x509.SubjectAlternativeName(pki.read_names(hosts)), False)] if hosts else []
    return made(name, by, ca=False, extra=extra, **more)


def write(path: Path, of: Made) -> Path:
    """Key and certificate in one file, which is there at once and whole."""
    temporary = path.with_suffix(".new")
    temporary.write_bytes(pki.write_key(of.key).encode() + of.pem)
    return temporary.replace(path)


def server(path: Path, verify: ssl.VerifyMode = ssl.CERT_NONE) -> ssl.SSLContext:
    """A server's context that shows the file at `path`."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    context.verify_mode = verify
    context.load_verify_locations(cadata=AUTHORITY.pem.decode())
    return context


def client(path: Path | None = None, by: Made = AUTHORITY) -> ssl.SSLContext:
    """A client's context that trusts `by`, and shows the file at `path`."""
    context = ssl.create_default_context(cadata=by.pem.decode())
    if path is not None:
        context.load_cert_chain(path)
    return context


def _old() -> ssl.SSLContext:
    context = client()
    context.set_ciphers("ALL:@SECLEVEL=0")
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):  # that is the point of it
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    return context


def shown(port: int, name: str | None, context: ssl.SSLContext | None = None) -> str:
    """The common name of what the server at `port` shows to whoever asks for `name`. Blocks."""
    context = context or ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with (
        socket.create_connection(("127.0.0.1", port), 5) as plain,
        context.wrap_socket(plain, server_hostname=name) as tls,
    ):
        der = tls.getpeercert(binary_form=True)
    assert der
    (found,) = x509.load_der_x509_certificate(der).subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(found.value)


def hello(name: bytes) -> bytes:
    """A ClientHello that asks for `name`, whatever is in it."""
    came, went = ssl.MemoryBIO(), ssl.MemoryBIO()
    stand_in = "x" * len(name)
    with suppress(ssl.SSLWantReadError):
        client().wrap_bio(came, went, server_hostname=stand_in).do_handshake()
    return went.read().replace(stand_in.encode(), name)


async def _speak(port: int, data: bytes) -> None:
    """Send, and read until the server closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(data)
    with suppress(ConnectionError):
        await asyncio.wait_for(reader.read(), 5)
    writer.close()


async def _shake(port: int, context: ssl.SSLContext) -> None:
    """A client of asyncio would not tell the server why it leaves."""
    await asyncio.to_thread(_shake_and_wait, port, context)


def _shake_and_wait(port: int, context: ssl.SSLContext) -> None:
    with (
        suppress(ssl.SSLError, ConnectionError),
        socket.create_connection(("127.0.0.1", port), 5) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as tls,
    ):
        assert tls.recv(1) == b"", "served"  # a client of TLS 1.3 is done before it is refused


async def _leave(port: int) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.close()


def bad_clients(path: Path) -> dict[str, tuple[Callable[[int], Awaitable[None]], str]]:
    """What comes to a port that wants a certificate, and why it is refused. The deadline must be short."""
    stranger = write(path / "stranger.pem", leaf("stranger", by=None))
    expired = write(path / "expired.pem", leaf("expired", not_after=NOW - timedelta(1)))
    return {
        "plain http": (lambda port: _speak(port, b"GET / HTTP/1.1\r\n\r\n"), "http request"),
        "no TLS": (lambda port: _speak(port, b"\x10\x0c\x00\x04MQTT\x04\x02\x00\x3c\x00\x00"), "wrong version number"),
        "silence": (lambda port: _speak(port, b""), "timeout"),
        "half a hello": (lambda port: _speak(port, hello(b"localhost")[:40]), "timeout"),
        "gone": (_leave, "connection lost"),
        "old TLS": (lambda port: _shake(port, _old()), "unsupported protocol"),
        "no certificate": (lambda port: _shake(port, client()), "peer did not return a certificate"),
        "stranger": (lambda port: _shake(port, client(stranger)), "certificate: self-signed certificate"),
        "expired": (lambda port: _shake(port, client(expired)), "certificate: certificate has expired"),
        "trusts others": (
            lambda port: _shake(port, client(by=made("Other"))), "tlsv1 alert unknown ca",
        ),
    }  # fmt: skip
