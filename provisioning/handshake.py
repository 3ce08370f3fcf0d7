"""The TLS handshakes of a listener: a deadline for each, and a line in the log for each that fails.

asyncio's own servers do the handshake by themselves, and say nothing of those that fail. Here each accepted socket has
a task that ends when the connection is handed over to its protocol. Both doors, MQTT and HTTP, are entered in this way.
"""

import asyncio
import socket
import ssl
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

import structlog

from provisioning.model.mqtt import Peer

log = structlog.get_logger()

ACCEPT_AGAIN: Final = 0.1
"""Seconds until the next try when the system has no room for one more socket."""
AT_ONCE: Final = 64
"""Connections that are accepted before others have their turn."""
OWN_WORDS: Final = {
    "CALLBACK_FAILED": "server name is not ASCII",  # Python does not even ask our callback, which refuses nobody
}


def words(error: Exception) -> str:
    """Why a handshake failed."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"certificate: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        reason = getattr(error, "reason", None) or str(error)
        return OWN_WORDS.get(reason) or reason.lower().replace("_", " ")
    if isinstance(error, ConnectionAbortedError | TimeoutError):
        return "timeout"
    return "connection lost"


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """How a listener takes TLS connections."""

    context: ssl.SSLContext
    timeout: float
    """Seconds for a handshake."""
    begin: Callable[[str | None], asyncio.Protocol]
    """Makes what a connection is handed over to, by the application protocol that was agreed on (ALPN); None: none."""
    enter: Callable[["Handshake"], bool]
    """Count a handshake like any other connection; False: there is no room, and it is closed at once."""
    leave: Callable[["Handshake"], None]
    """It has ended, or the connection is about to take its place."""
    refused: str
    """Event of the line of a handshake that failed."""
    overload: str
    """Event of the line that says that the system has no room for one more socket."""


class Handshake(asyncio.Protocol):
    """A connection that has not shown who it is; the task of its handshake."""

    __slots__ = ("_counted", "_socket", "_task", "_terms", "peer")

    def __init__(self, terms: Terms, accepted: socket.socket, peer: Peer) -> None:
        self.peer = peer
        self._terms = terms
        self._socket = accepted
        self._task: asyncio.Task[None] | None = None
        self._counted = False

    def start(self) -> None:
        self._counted = True
        if not self._terms.enter(self):
            self._end()
            return
        self._task = asyncio.get_running_loop().create_task(self._shake())
        self._task.add_done_callback(self._end)  # a task that is cancelled before it began has no other end

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The handshake is done. `connect_accepted_socket` in `_shake` loses nothing that came along with its end."""
        self._leave()
        protocol = self._terms.begin(transport.get_extra_info("ssl_object").selected_alpn_protocol())
        transport.set_protocol(protocol)
        protocol.connection_made(transport)

    def close(self, reason: str, *, code: int = 0) -> None:
        """As a connection's; there is nobody yet to be told anything."""
        del reason, code
        self.abort()

    def abort(self) -> None:
        """Cut it off."""
        if self._task is not None:
            self._task.cancel()

    def _leave(self) -> None:
        if self._counted:
            self._counted = False
            self._terms.leave(self)

    def _end(self, task: "asyncio.Task[None] | None" = None) -> None:
        self._leave()
        if task is None or task.cancelled():
            self._socket.close()

    async def _shake(self) -> None:
        terms = self._terms
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: self, self._socket, ssl=terms.context, ssl_handshake_timeout=terms.timeout
            )
        except (OSError, TimeoutError) as error:  # ssl.SSLError is an OSError
            log.info(
                terms.refused, protocol="none", peer=str(self.peer), outcome="refused", reason="tls", tls=words(error)
            )


async def bind(host: str, port: int, backlog: int) -> list[socket.socket]:
    """A listening socket for each address of `host`; an empty one means all addresses, port 0 any free port.

    Raises:
        OSError: there is no such host, or one of its addresses cannot be listened on; none is, then.
    """
    found = await asyncio.get_running_loop().getaddrinfo(
        host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )
    bound: list[socket.socket] = []
    try:
        for family, address in dict.fromkeys((family, address) for family, _, _, _, address in found):
            bound.append(socket.create_server(address, family=family, backlog=backlog))
            bound[-1].setblocking(False)
    except BaseException:
        for each in bound:
            each.close()
        raise
    return bound


async def accept(bound: socket.socket, terms: Terms) -> None:
    """Begin a handshake with everybody who connects to `bound`, a socket of `bind`, until cancelled."""
    loop = asyncio.get_running_loop()
    while True:
        failed: asyncio.Future[OSError] = loop.create_future()
        loop.add_reader(bound, _take, bound, terms, failed)  # `sock_accept` loses a socket when it is cancelled
        try:
            error = await failed
        finally:
            loop.remove_reader(bound)
        log.warning(terms.overload, outcome="failed", reason="accept", error=str(error))
        await asyncio.sleep(ACCEPT_AGAIN)


def _take(bound: socket.socket, terms: Terms, failed: "asyncio.Future[OSError]") -> None:
    for _ in range(AT_ONCE):
        try:
            accepted, address = bound.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return
        except OSError as error:
            if not failed.done():
                failed.set_result(error)
            return
        accepted.setblocking(False)
        with suppress(OSError):  # it has gone already; the handshake hears of it
            accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        Handshake(terms, accepted, Peer(str(address[0]), int(address[1]), tls=True)).start()
