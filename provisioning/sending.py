"""Sends webhook deliveries: one POST each, to where it may go, and what became of it.

Nothing that a receiver does may harm us: the address is looked at when the socket is made, whatever a name stood for a
moment ago; there are no redirects, no proxies, no cookies; of its answer the status counts, and little else is read.
"""

import asyncio
import errno
import os
import socket
import ssl
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Any, Final

import aiohttp
from aiohttp import hdrs
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from provisioning.core import webhooks
from provisioning.store.webhooks import Delivery

ENOUGH: Final = 4_096
"""Bytes that are read of an answer's body, so that its connection can be used again."""
DRAIN: Final = 1.0
"""Seconds for that."""
IDLE: Final = 1.0
"""Seconds that a connection is kept: less than servers keep theirs, or they would close it under our request."""
RESOLVERS: Final = 32
"""Threads that ask for names."""
SUCCESSES: Final = range(200, 300)
REDIRECTS: Final = range(300, 400)
AGENT: Final = "Gatehouse"


class Why(StrEnum):
    """Why an attempt has failed."""

    STATUS = "status"
    REDIRECT = "redirect"
    TIMEOUT = "timeout"
    ADDRESS = "address"
    """The host has no address that we may send to."""
    NAME = "name"
    """The host is unknown."""
    TLS = "tls"
    CONNECTION = "connection"
    RESPONSE = "response"
    """It did not answer in HTTP."""
    TOKEN = "token"  # noqa: S105 - no secret
    """Ours does not open: it was sealed under another master key."""
    INTERNAL = "internal"


@dataclass(frozen=True, slots=True)
class Sent:
    """What became of an attempt. `why` None: it was delivered."""

    why: Why | None = None
    status: int | None = None
    words: str = ""

    @property
    def error(self) -> str:
        """For a person; empty: it was delivered."""
        return self.words or (f"answered {self.status}" if self.why and self.status else str(self.why or ""))


@dataclass(frozen=True, slots=True)
class Policy:
    timeout: float = 10.0
    """Seconds from the look-up of the name to the status of the answer."""
    private: bool = False
    """Are addresses allowed that are not public?"""
    ca: Path | None = None
    """Certificates (PEM) that are trusted beside the system's."""


class RefusedError(OSError):
    """We do not send to this address."""


class _Resolver(AbstractResolver):
    """Asks the system, in threads of its own: names that nobody answers for keep nobody else waiting."""

    def __init__(self, threads: ThreadPoolExecutor) -> None:
        self._threads = threads

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        look_up = partial(socket.getaddrinfo, host, port, family, socket.SOCK_STREAM)
        found = await asyncio.get_running_loop().run_in_executor(self._threads, look_up)
        return [
            ResolveResult(
                hostname=host, host=str(address[0]), port=port, family=kind, proto=protocol,
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
            for kind, _, protocol, _, address in found
        ]  # fmt: skip

    async def close(self) -> None:
        """The threads are not ours."""


class Sender:
    """Makes attempts. See `sender`."""

    def __init__(self, http: aiohttp.ClientSession, policy: Policy) -> None:
        self._http = http
        self._policy = policy

    async def send(self, delivery: Delivery) -> Sent:
        """One attempt. Raises nothing but a cancellation."""
        if delivery.token is None:
            return Sent(Why.TOKEN, words="the token of the webhook does not open")
        status: int | None = None
        try:
            body = delivery.body.encode()
            async with (
                asyncio.timeout(self._policy.timeout),
                self._http.post(URL(delivery.url, encoded=True), data=body, headers=_headers(body, delivery.token),
                                allow_redirects=False) as response,
            ):  # fmt: skip
                status = response.status
                await _drain(response)
        except Exception as error:  # noqa: BLE001 - whatever a receiver brings about is its delivery's failure
            if status is None:
                return _failed(error)
        assert status is not None
        if status in SUCCESSES:
            return Sent(status=status)
        return Sent(Why.REDIRECT if status in REDIRECTS else Why.STATUS, status)


def _headers(body: bytes, token: str) -> dict[str, str]:
    return {
        hdrs.CONTENT_TYPE: "application/json", hdrs.AUTHORIZATION: token, "X-Signature": webhooks.sign(body, token),
        hdrs.USER_AGENT: AGENT,
    }  # fmt: skip


async def _drain(response: aiohttp.ClientResponse) -> None:
    """Read the rest, if it is short and quick."""
    left = ENOUGH
    with suppress(TimeoutError):
        async with asyncio.timeout(DRAIN):
            while left > 0 and (part := await response.content.read(left)):
                left -= len(part)


def _failed(error: Exception) -> Sent:
    why, cause = Why.INTERNAL, error
    match error:
        case TimeoutError():
            return Sent(Why.TIMEOUT, words="did not answer in time")
        case aiohttp.ClientConnectorDNSError():
            return Sent(Why.NAME, words="the host is unknown")
        case aiohttp.ClientConnectorCertificateError():
            why, cause = Why.TLS, error.certificate_error
        case aiohttp.ClientConnectorError():
            cause = error.os_error
            of_tls = isinstance(error, aiohttp.ClientSSLError)
            why = Why.TLS if of_tls else Why.ADDRESS if isinstance(cause, RefusedError) else Why.CONNECTION
        case aiohttp.ClientConnectionError() | OSError():
            why = Why.CONNECTION
        case aiohttp.ClientError():
            return Sent(Why.RESPONSE, words="did not answer in HTTP")
    return Sent(why, words=_words(cause))


def _words(error: Exception) -> str:
    """Of ours and of the system: nothing that a receiver says."""
    match error:
        case ssl.SSLCertVerificationError():
            return error.verify_message
        case ssl.SSLError():
            return (error.reason or "the handshake failed").lower().replace("_", " ")
        case RefusedError():
            return "the address is not public"
        case OSError() if error.errno is not None and error.errno in errno.errorcode:
            return os.strerror(error.errno).lower()
        case aiohttp.ClientConnectionError():
            return "closed the connection"
    return type(error).__name__


@asynccontextmanager
async def sender(policy: Policy) -> AsyncIterator[Sender]:
    """A sender, as long as the block runs.

    Raises:
        OSError, ssl.SSLError: `policy.ca` cannot be read, or holds no certificate.
    """
    trusted = ssl.create_default_context()
    if policy.ca is not None:
        trusted.load_verify_locations(cafile=policy.ca)

    def make_socket(address: tuple[Any, ...]) -> socket.socket:
        kind, type_, protocol, _, where = address
        if not policy.private and not webhooks.is_public(str(where[0])):
            raise RefusedError
        return socket.socket(kind, type_, protocol)

    threads = ThreadPoolExecutor(RESOLVERS, thread_name_prefix="names")
    connector = aiohttp.TCPConnector(
        ssl=trusted, limit=0, keepalive_timeout=IDLE, resolver=_Resolver(threads), socket_factory=make_socket
    )
    try:
        async with aiohttp.ClientSession(
            connector=connector, cookie_jar=aiohttp.DummyCookieJar(), trust_env=False, auto_decompress=False,
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=None), skip_auto_headers=[hdrs.ACCEPT_ENCODING],
            max_field_size=8_190,
        ) as http:  # fmt: skip
            yield Sender(http, policy)
    finally:
        threads.shutdown(wait=False, cancel_futures=True)
