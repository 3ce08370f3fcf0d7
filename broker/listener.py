"""The listener: accepts connections on its addresses, within limits, and takes them down again."""

import asyncio
import socket
import ssl
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

import structlog

from broker.connection import Connection
from broker.deadlines import Deadlines
from broker.seat import Broker
from broker.sessions import Sessions
from broker.tls import accept
from provisioning.handshake import Handshake
from provisioning.model.admission import Admission, Verdict
from provisioning.model.mqtt import Connect, Peer

log = structlog.get_logger()

BACKLOG: Final = 4096
"""The default of 100 costs seconds when a thousand devices come at once."""
STOP_TIMEOUT: Final = 1.0
"""Seconds that devices have to take their last bytes when the service stops."""

Admit = Callable[[Connect, Peer], Verdict | Awaitable[Verdict]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Seconds, bytes and counts; see `config/gatehouse.toml`."""

    connect_timeout: float = 10.0
    max_connections: int = 100_000
    max_per_address: int = 20_000
    max_small_packet: int = 65_536
    max_packet: int = 1_048_576
    max_keepalive: int = 1_200
    default_keepalive: int = 300
    max_subscriptions: int = 500
    session_expiry: int = 86_400


@dataclass(slots=True)
class Totals:
    """What all connections of a listener did so far."""

    received: int = 0
    sent: int = 0


class Listener:
    """Accepts connections on one address or more, and owns them.

    `came` and `went` are told the ids of devices: one has a session that it may use, one has none (any more). A session
    with a push may be used once that is acknowledged (EnOS reference, section 9, step 9).
    """

    def __init__(
        self,
        admit: Admit,
        broker: Broker,
        sessions: Sessions,
        limits: Limits,
        *,
        came: Callable[[int], None],
        went: Callable[[int], None],
        on_acknowledged: Callable[[Admission], None],
    ) -> None:
        self.admit = admit
        self.broker = broker
        self.sessions = sessions
        self.limits = limits
        self.came = came
        self.went = went
        self.on_acknowledged = on_acknowledged
        self.loop = asyncio.get_running_loop()
        self.deadlines = Deadlines(self.loop)
        self.connections: set[Connection | Handshake] = set()
        self.per_address: Counter[str] = Counter()
        self.totals = Totals()
        self.ports: list[int] = []
        """Those that are really bound, in the order of `start`."""
        self._servers: list[asyncio.Server] = []
        self._bound: list[socket.socket] = []
        self._accepting: list[asyncio.Task[None]] = []
        self._turned_away = 0
        self._told_at = 0.0
        self._stopping = False
        self._emptied = asyncio.Event()

    async def start(self, host: str, port: int, ssl_context: ssl.SSLContext | None = None) -> None:
        """Accept on an address, beside those of earlier calls.

        Raises:
            OSError: it cannot be bound.
        """
        if ssl_context is None:
            server = await self.loop.create_server(self.begin, host, port, backlog=BACKLOG, reuse_address=True)
            self._servers.append(server)
            self.ports.append(server.sockets[0].getsockname()[1])
            return
        before = len(self._bound)
        found = await self.loop.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, _, _, _, address in found:
            bound = socket.create_server(address[:2], family=family, backlog=BACKLOG)
            bound.setblocking(False)
            self._bound.append(bound)
            self._accepting.append(self.loop.create_task(accept(self, ssl_context, bound), name="accept"))
        self.ports.append(self._bound[before].getsockname()[1])

    def begin(self) -> Connection:
        """What somebody who connects is served by."""
        return Connection(self)

    @property
    def port(self) -> int:
        """The first port that is really bound."""
        return self.ports[0]

    def enter(self, connection: Connection | Handshake, address: str) -> str:
        """Count a new connection; returns why it must go at once, or nothing."""
        no = ""
        if self._stopping:
            no = "shutdown"
        elif (
            len(self.connections) >= self.limits.max_connections
            or self.per_address[address] >= self.limits.max_per_address
        ):
            no = "too_many_connections"
            self._turn_away(address)
        self.connections.add(connection)
        self.per_address[address] += 1
        return no

    def leave(self, connection: Connection | Handshake, address: str) -> None:
        self.connections.discard(connection)
        self.per_address[address] -= 1
        if not self.per_address[address]:
            del self.per_address[address]
        if not self.connections:
            self._emptied.set()

    def _turn_away(self, address: str) -> None:
        """Say that connections are refused for want of room; once in a second."""
        self._turned_away += 1
        if (now := self.loop.time()) - self._told_at >= 1:
            log.warning(
                "mqtt.overload", outcome="refused", reason="too_many_connections", address=address,
                connections=len(self.connections), refused=self._turned_away,
            )  # fmt: skip
            self._turned_away, self._told_at = 0, now

    async def stop(self) -> None:
        """Close the listener, then every connection; returns when all are gone."""
        self._stopping = True
        for server in self._servers:
            server.close()
        for task in self._accepting:
            task.cancel()
        await asyncio.gather(*self._accepting, return_exceptions=True)
        for bound in self._bound:
            bound.close()
        self._emptied.clear()
        for connection in list(self.connections):
            connection.close("shutdown", code=0x8B)
        if self.connections:
            with suppress(TimeoutError):
                async with asyncio.timeout(STOP_TIMEOUT):
                    await self._emptied.wait()
        for connection in list(self.connections):
            connection.abort()
        if self.connections:
            await self._emptied.wait()
        self.deadlines.close()
