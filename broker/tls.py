"""TLS before MQTT: the handshake of a connection, with a deadline and a line in the log when it fails.

asyncio's own servers do the handshake by themselves, and say nothing of those that fail. Here each accepted socket has
a task that ends when the connection is handed over. The certificate is read from the connection afterwards: it is the
one that this peer has proven, in this handshake or in the TLS session that it resumes.
"""

import asyncio
import socket
import ssl
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import structlog

from broker.connection import Connection
from provisioning.model.mqtt import Peer

if TYPE_CHECKING:
    from broker.listener import Listener

log = structlog.get_logger()

ACCEPT_AGAIN: Final = 0.1
"""Seconds until the next try when the system has no room for one more socket."""


def words(error: Exception) -> str:
    """Why a handshake failed."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"certificate: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return (error.reason or str(error)).lower().replace("_", " ")
    if isinstance(error, ConnectionAbortedError | TimeoutError):
        return "timeout"
    return "connection lost"


class SecureConnection(Connection):
    """A connection that begins when its handshake is done."""

    __slots__ = ("_handshake",)

    def __init__(self, listener: "Listener", handshake: "Handshake") -> None:
        super().__init__(listener)
        self._handshake = handshake

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._handshake.leave()  # the connection takes its place among the listener's
        super().connection_made(transport)


class Handshake:
    """A connection that has not shown who it is. It counts among the listener's connections like any other."""

    def __init__(self, listener: "Listener", context: ssl.SSLContext, accepted: socket.socket) -> None:
        self._listener = listener
        self._context = context
        self._socket = accepted
        self._task: asyncio.Task[None] | None = None
        self._counted = False
        name = accepted.getpeername()
        self.peer = Peer(str(name[0]), int(name[1]), tls=True)

    def start(self) -> None:
        refused = self._listener.enter(self, self.peer.address)
        self._counted = True
        if refused:
            self._end()
            return
        self._task = self._listener.loop.create_task(self._shake())
        self._task.add_done_callback(self._end)  # a task that is cancelled before it began has no other end

    def leave(self) -> None:
        if self._counted:
            self._counted = False
            self._listener.leave(self, self.peer.address)

    def _end(self, task: "asyncio.Task[None] | None" = None) -> None:
        self.leave()
        if task is None or task.cancelled():
            self._socket.close()

    async def _shake(self) -> None:
        try:
            await self._listener.loop.connect_accepted_socket(
                lambda: SecureConnection(self._listener, self), self._socket, ssl=self._context,
                ssl_handshake_timeout=self._listener.limits.connect_timeout,
            )  # fmt: skip
        except (OSError, TimeoutError) as error:  # ssl.SSLError is an OSError
            log.info(
                "mqtt.login", protocol="none", peer=str(self.peer), outcome="refused", reason="tls", tls=words(error)
            )

    def close(self, reason: str, *, code: int = 0) -> None:
        """As a connection's; there is nobody yet to be told anything."""
        del reason, code
        self.abort()

    def abort(self) -> None:
        if self._task is not None:
            self._task.cancel()


async def accept(listener: "Listener", context: ssl.SSLContext, bound: socket.socket) -> None:
    """Begin a handshake with everybody who connects, until cancelled."""
    while True:
        try:
            accepted, _ = await listener.loop.sock_accept(bound)
        except OSError as error:
            log.warning("mqtt.overload", outcome="failed", reason="accept", error=str(error))
            await asyncio.sleep(ACCEPT_AGAIN)
            continue
        with suppress(OSError):  # it has gone already
            accepted.setblocking(False)
            accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            Handshake(listener, context, accepted).start()
            continue
        accepted.close()
