"""LISTEN: what other processes, and people at a psql prompt, changed.

Triggers tell every change that a login is judged by, and sessions that moved to another process (see the migrations).
The connection that listens is checked every few seconds; while it is lost, whoever relies on the reports is told so,
and told again when they are back.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

import asyncpg

from provisioning import log, tasks

CHANNEL: Final = "gatehouse"
CHECK_EVERY: Final = 2.0
LONGEST_WAIT: Final = 2.0


class What(StrEnum):
    CHANGED = "changed"
    DISABLED = "disabled"
    RESET = "reset"
    DELETED = "deleted"
    KICKED = "kicked"
    PRODUCT = "product"
    ADDED = "added"
    CERTIFICATE = "certificate"
    AUTHORITY = "authority"
    TAKEN_OVER = "taken_over"
    TRUNCATED = "truncated"
    DELIVERY = "delivery"


@dataclass(frozen=True, slots=True)
class Change:
    what: What
    protocol: str = ""
    product: str = ""
    device: str = ""
    authority: str = ""
    """Row id, in digits."""
    serial: str = ""
    status: str = ""
    node: str = ""
    """The process whose session has a newer one elsewhere."""
    id: int = 0
    """Of the device."""
    login: int = 0
    """Which session is meant, as its process named it."""


TEXTS: Final = ("protocol", "product", "device", "authority", "serial", "status", "node")


def read_change(payload: str) -> Change | None:
    """A notification as our triggers write it; None: somebody else's."""
    try:
        fields = json.loads(payload)
        what = What(fields["change"])
        if what is What.CERTIFICATE:
            int(fields["authority"])
        texts = {name: str(fields.get(name, "")) for name in TEXTS}
        return Change(what, **texts, id=int(fields.get("id", 0)), login=int(fields.get("login", 0)))
    except (ValueError, OverflowError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def _words(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


class Listener:
    """Keeps one connection on the channel: `on_back` is called when reports begin, `on_lost` when they end."""

    def __init__(
        self,
        url: str,
        *,
        on_change: Callable[[Change], None],
        on_back: Callable[[], None],
        on_lost: Callable[[], None],
    ) -> None:
        self._url = url
        self._on_change = on_change
        self._on_back = on_back
        self._on_lost = on_lost
        self._lost = asyncio.Event()
        self.listening = asyncio.Event()
        """Set while changes are reported."""

    def _notified(self, _connection: Any, _pid: int, _channel: str, payload: object) -> None:
        if change := read_change(str(payload)):
            self._on_change(change)

    def _terminated(self, _connection: Any) -> None:
        self._lost.set()

    async def run(self) -> None:
        """Listen until cancelled, across losses of the connection."""
        wait = 0.1
        lost = False
        while True:
            try:
                connection = await asyncpg.connect(self._url, timeout=LONGEST_WAIT, command_timeout=LONGEST_WAIT)
            except Exception as error:  # noqa: BLE001 - whatever it is: without changes no session is ended
                log.get().warning(
                    "database.listen", outcome="failed", reason="unavailable", error=_words(error), retry_s=wait
                )
                await asyncio.sleep(wait)
                wait = min(wait * 2, LONGEST_WAIT)
                lost = True
                continue
            if lost:
                log.get().info("database.listen", outcome="accepted")
            wait, lost = 0.1, True
            try:
                await self._hold(connection)
            except Exception as error:  # noqa: BLE001 - as above
                log.get().warning("database.listen", outcome="failed", error=_words(error))
            finally:
                self.listening.clear()
                self._on_lost()
                with suppress(Exception):
                    connection.terminate()

    async def _hold(self, connection: "asyncpg.Connection[asyncpg.Record]") -> None:
        self._lost.clear()
        connection.add_termination_listener(self._terminated)
        await connection.add_listener(CHANNEL, self._notified)
        self._on_back()
        self.listening.set()
        while not self._lost.is_set():
            with suppress(TimeoutError):  # not `asyncio.wait_for`: before 3.12 it may swallow a cancellation
                async with asyncio.timeout(CHECK_EVERY):
                    await self._lost.wait()
            if not self._lost.is_set():
                await connection.fetchval("SELECT 1", timeout=CHECK_EVERY)
        raise ConnectionError("the connection was closed")


@asynccontextmanager
async def listening(listener: Listener) -> AsyncIterator[Listener]:
    """Run the listener as long as the block runs; the block begins when changes are reported."""
    task = asyncio.create_task(listener.run(), name="changes")
    try:
        async with asyncio.timeout(2 * LONGEST_WAIT):
            await listener.listening.wait()
        yield listener
    finally:
        await tasks.end(task)
