"""A listening socket for one application: takes connections within limits, and ends without cutting off an answer."""

import asyncio
import ssl
from collections.abc import Iterable
from typing import Final

from aiohttp import web

from provisioning import log
from provisioning.settings import Http
from provisioning.web.canonical import METRICS
from provisioning.web.connection import Connection

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

    Of `settings` it keeps `max_connections` and `header_timeout`; `request_timeout` is the deadline of writing an
    answer (the deadline of making one is the operation's).
    """

    def __init__(
        self, app: web.Application, *, host: str, port: int, settings: Http, ssl_context: ssl.SSLContext | None = None
    ) -> None:
        self.metrics = app[METRICS]
        self.header_timeout = settings.header_timeout
        self.answer_timeout = settings.request_timeout
        self._max_connections = settings.max_connections
        self._host = host
        self._port = port
        self._ssl_context = ssl_context
        self._runner = web.AppRunner(app, shutdown_timeout=LAST_CALL)
        self._listener: asyncio.Server | None = None
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
        """How many connections are open."""
        return len(self._open)

    async def start(self) -> None:
        """Start the application and listen.

        Raises:
            OSError: the address cannot be listened on.
        """
        await self._runner.setup()
        loop = asyncio.get_running_loop()
        try:
            self._listener = await loop.create_server(
                self._connect,
                self._host,
                self._port,
                backlog=BACKLOG,
                ssl=self._ssl_context,
                ssl_handshake_timeout=self.header_timeout if self._ssl_context else None,
            )
        except BaseException:
            self._stopping = True
            await self._runner.cleanup()
            raise
        self._port = self._listener.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Stop listening, let requests in progress end within GRACE seconds, close everything. Safe to repeat."""
        if self._stopping:
            return
        self._stopping = True
        if self._listener is not None:
            self._listener.close()
        for connection in tuple(self._open):
            connection.retire()
        if self._open:
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

    def enter(self, connection: Connection) -> bool:
        """Whether this connection may stay: its own question when it is made."""
        if self._stopping:
            return False
        if len(self._open) >= self._max_connections:
            self._turned_away += 1
            if self._report is None:
                self._report_overload()
            return False
        self._open.add(connection)
        return True

    def leave(self, connection: Connection) -> None:
        """The connection is lost."""
        self._open.discard(connection)
        if not self._open:
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
