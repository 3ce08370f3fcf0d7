"""A listening socket for one application: takes connections within limits, and ends without cutting off an answer."""

import asyncio
import socket
import ssl
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

from aiohttp import web

from provisioning import handshake, log
from provisioning.handshake import Handshake, Terms
from provisioning.sections import Http
from provisioning.web.canonical import METRICS
from provisioning.web.connection import Connection
from provisioning.web.stray import NAME

BACKLOG: Final = 4_096
"""Connections that the system holds for us; it may have a smaller limit of its own (net.core.somaxconn)."""
KEEPALIVE_TIMEOUT: Final = 75.0
"""Seconds that a connection may rest between two requests."""
GRACE: Final = 5.0
"""Seconds that requests in progress get when the site stops."""
LAST_CALL: Final = 0.5
"""Seconds that aiohttp then waits, twice, before it cancels what is left."""
REPORT_INTERVAL: Final = 1.0
"""Seconds between two `http.overload` lines."""


class Site:
    """Serves `app` at `host`:`port`; port 0 means any free port. The application must hold `METRICS`.

    Of `settings` it keeps `max_connections` and `header_timeout`, which a TLS handshake has for itself as well;
    `request_timeout` is the deadline of writing an answer (the deadline of making one is the operation's).
    `others`: who is served by something else, by the application protocol that TLS has agreed on (ALPN).
    """

    def __init__(
        self,
        app: web.Application,
        *,
        host: str,
        port: int,
        settings: Http,
        ssl_context: ssl.SSLContext | None = None,
        others: Mapping[str, Callable[[], asyncio.Protocol]] | None = None,
    ) -> None:
        self.metrics = app[METRICS]
        self.header_timeout = settings.header_timeout
        self.answer_timeout = settings.request_timeout
        self._max_connections = settings.max_connections
        self._host = host
        self._port = port
        self._ssl_context = ssl_context
        self._others = others or {}
        self._runner = web.AppRunner(app, shutdown_timeout=LAST_CALL)
        self._listener: asyncio.Server | None = None
        self._bound: list[socket.socket] = []
        self._accepting: list[asyncio.Task[None]] = []
        self._shaking: set[Handshake] = set()
        self._open: set[Connection] = set()
        self._stopping = False
        self._emptied = asyncio.Event()
        self._turned_away = 0
        self._report: asyncio.TimerHandle | None = None

    @property
    def port(self) -> int:
        """The port that is listened on; before `start`, the one that was asked for."""
        return self._port

    @property
    def connections(self) -> int:
        """How many connections are open, those in a TLS handshake among them."""
        return len(self._open) + len(self._shaking)

    async def start(self) -> None:
        """Start the application and listen.

        Raises:
            OSError: the address cannot be listened on.
        """
        await self._runner.setup()
        try:
            sockets = await self._listen()
        except BaseException:
            self._stopping = True
            await self._runner.cleanup()
            raise
        self._port = sockets[0].getsockname()[1]

    async def _listen(self) -> Sequence[socket.socket]:
        """Raises: OSError."""
        loop = asyncio.get_running_loop()
        if self._ssl_context is None:
            self._listener = await loop.create_server(self._connect, self._host, self._port, backlog=BACKLOG)
            return self._listener.sockets
        self._bound = await handshake.bind(self._host, self._port, BACKLOG)
        terms = Terms(
            context=self._ssl_context, timeout=self.header_timeout, begin=self._begin, enter=self._enter_handshake,
            leave=self._leave_handshake, refused=f"http.{NAME}", overload="http.overload",
        )  # fmt: skip
        self._accepting = [loop.create_task(handshake.accept(each, terms), name="accept") for each in self._bound]
        return self._bound

    def _begin(self, agreed: str | None) -> asyncio.Protocol:
        return self._others.get(agreed or "", self._connect)()

    async def stop(self) -> None:
        """Stop listening, let requests in progress end within GRACE seconds, close everything. Safe to repeat."""
        if self._stopping:
            return
        self._stopping = True
        await self._stop_listening()
        for connection in tuple(self._open):
            connection.retire()
        if self.connections:
            self._emptied.clear()
            try:
                async with asyncio.timeout(GRACE):
                    await self._emptied.wait()
            except TimeoutError:
                log.get().warning("http.cut_off", connections=len(self._open))
        tasks = _running(self._open)
        await self._runner.cleanup()
        if tasks:
            await asyncio.wait(tasks, timeout=LAST_CALL)
        for connection in tuple(self._open):
            connection.abort()
        if self._report is not None:
            self._report.cancel()
            self._say_turned_away()

    async def _stop_listening(self) -> None:
        if self._listener is not None:
            self._listener.close()
        for task in self._accepting:
            task.cancel()
        await asyncio.gather(*self._accepting, return_exceptions=True)
        for bound in self._bound:
            bound.close()
        for shaking in tuple(self._shaking):
            shaking.abort()

    def enter(self, connection: Connection) -> bool:
        """Whether this connection may stay: its own question when it is made."""
        if not self._has_room():
            return False
        self._open.add(connection)
        return True

    def leave(self, connection: Connection) -> None:
        """The connection is lost."""
        self._open.discard(connection)
        self._one_less()

    def _enter_handshake(self, shaking: Handshake) -> bool:
        if not self._has_room():
            return False
        self._shaking.add(shaking)
        return True

    def _leave_handshake(self, shaking: Handshake) -> None:
        self._shaking.discard(shaking)
        self._one_less()

    def _has_room(self) -> bool:
        if self._stopping:
            return False
        if self.connections < self._max_connections:
            return True
        self._turned_away += 1
        if self._report is None:
            self._report_overload()
        return False

    def _one_less(self) -> None:
        if not self.connections:
            self._emptied.set()

    def _connect(self) -> Connection:
        server = self._runner.server
        assert server is not None
        return Connection(server, self, loop=asyncio.get_running_loop(), keepalive_timeout=KEEPALIVE_TIMEOUT)

    def _report_overload(self) -> None:
        self._report = None
        if self._say_turned_away():
            self._report = asyncio.get_running_loop().call_later(REPORT_INTERVAL, self._report_overload)

    def _say_turned_away(self) -> bool:
        if not self._turned_away:
            return False
        log.get().warning("http.overload", turned_away=self._turned_away, limit=self._max_connections)
        self._turned_away = 0
        return True


def _running(connections: Iterable[Connection]) -> list[asyncio.Task[None]]:
    return [connection.task for connection in connections if connection.task is not None]
