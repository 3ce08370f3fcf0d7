"""TLS before MQTT: the handshake of a connection, with a deadline and a line in the log when it fails.

asyncio can do the handshake by itself, and then says nothing of those that fail. Here each is a task of its own, which
ends when the connection is handed over. The certificate is read from the connection afterwards: it is the one that this
peer has proven, in this handshake or in the TLS session that it resumes.
"""

import asyncio
import ssl
from contextlib import suppress
from typing import TYPE_CHECKING, cast

import structlog

from broker import connection as plain

if TYPE_CHECKING:
    from broker.listener import Listener

log = structlog.get_logger()


class _Early(asyncio.Protocol):
    """Takes what comes between the end of the handshake and the handing over."""

    def __init__(self) -> None:
        self.data = b""
        self.lost = False

    def data_received(self, data: bytes) -> None:
        self.data += data

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        self.lost = True


def words(error: Exception) -> str:
    """Why a handshake failed."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"certificate: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return (error.reason or str(error)).lower().replace("_", " ")
    if isinstance(error, ConnectionAbortedError | TimeoutError):
        return "timeout"
    return "connection lost"


class Handshake(asyncio.Protocol):
    """A connection that has not shown who it is. It counts among the listener's connections like any other."""

    def __init__(self, listener: "Listener", context: ssl.SSLContext) -> None:
        self._listener = listener
        self._context = context
        self._transport: asyncio.Transport | None = None
        self._task: asyncio.Task[None] | None = None
        self._address: str | None = None
        """While it counts among the connections."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's transports are not of asyncio's classes
        self._transport.pause_reading()  # until the handshake takes over: not a byte may come here
        peer = plain.peer_of(self._transport)
        if self._listener.enter(self, peer.address):
            self._listener.leave(self, peer.address)
            self._transport.abort()
            return
        self._address = peer.address
        self._task = self._listener.loop.create_task(self._shake(self._transport, str(peer)))
        self._task.add_done_callback(self._leave)  # a task that is cancelled before it began has no other end

    def _leave(self, _task: object = None) -> None:
        if self._address is not None:
            self._listener.leave(self, self._address)
            self._address = None

    async def _shake(self, transport: asyncio.Transport, peer: str) -> None:
        early = _Early()
        secure: asyncio.Transport | None = None
        try:
            secure = await self._listener.loop.start_tls(
                transport, early, self._context, server_side=True,
                ssl_handshake_timeout=self._listener.limits.connect_timeout,
            )  # fmt: skip
        except (OSError, TimeoutError) as error:  # ssl.SSLError is an OSError
            log.info("mqtt.login", protocol="none", peer=peer, outcome="refused", reason="tls", tls=words(error))
        except asyncio.CancelledError:
            transport.abort()
            raise
        self._leave()
        if secure is None or early.lost:
            transport.abort()
            return
        connection = plain.Connection(self._listener)
        secure.set_protocol(connection)
        connection.connection_made(secure)
        if early.data:
            connection.data_received(early.data)

    def close(self, reason: str, *, code: int = 0) -> None:
        """As a connection's; there is nobody yet to be told anything."""
        del reason, code
        self.abort()

    def abort(self) -> None:
        if self._task is not None:
            self._task.cancel()
        if self._transport is not None:
            with suppress(RuntimeError):
                self._transport.abort()
