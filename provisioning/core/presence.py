"""Who is connected, told to the database now and then: a row per device and moment would cost more than a login.

By the same rows a session ends here when its device has logged in at another process since: this one hears of it
(`taken`), or learns it when it writes a login that was older (`flush`), or looks it up after it has been deaf (`hold`).
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from itertools import islice
from typing import Final
from uuid import uuid4

from provisioning import log, tasks
from provisioning.model.identity import Identity
from provisioning.model.refusal import Refusal
from provisioning.store import presence
from provisioning.store.database import Database
from provisioning.store.presence import Lost, Stay

FLUSH_EVERY: Final = 0.5
BEAT_EVERY: Final = 5.0
MOST_AT_ONCE: Final = 5_000

TakenOver = Callable[[Identity, int], object]


class Presence:
    """Collects who came and went; `run` writes it. What the database misses is told later.

    `on_taken_over` is told the identity and device id of a session here that has a newer one elsewhere.
    `clock`: ns, running forward; compared with itself alone.
    """

    def __init__(
        self,
        database: Database,
        on_taken_over: TakenOver = lambda _identity, _device_id: None,
        *,
        clock: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self._database = database
        self._on_taken_over = on_taken_over
        self._clock = clock
        self.node = uuid4()
        self._last = 0
        self._live: dict[int, int] = {}
        """Device id -> login of the session that it has here."""
        self._changes: dict[int, Stay] = {}
        self._unsure = False

    @property
    def depth(self) -> int:
        return len(self._changes)

    def came(self, device_id: int) -> None:
        self._last = login = max(self._clock(), self._last + 1)
        self._live[device_id] = login
        self._changes[device_id] = Stay(login, online=True, seen=login)

    def went(self, device_id: int) -> None:
        login = self._live.pop(device_id, None)
        if login is not None:
            self._changes[device_id] = Stay(login, online=False, seen=max(self._clock(), login))

    def taken(self, lost: Lost) -> None:
        """A session that this process once wrote has a newer one elsewhere; one that came here since stays."""
        login = self._live.get(lost.device_id)
        if login is not None and login <= lost.login:
            self._on_taken_over(lost.identity, lost.device_id)

    def hold(self) -> None:
        """Reports of other processes, or the table, may have been lost: have all sessions looked up soon."""
        self._unsure = True

    async def flush(self) -> None:
        """Write what has been collected; what comes meanwhile is for the next time.

        Raises:
            Refusal: UNAVAILABLE; what was not written is kept.
        """
        left = len(self._changes)
        while left > 0 and self._changes:
            part = dict(islice(self._changes.items(), min(left, MOST_AT_ONCE)))
            left -= len(part)
            async with self._database.begin() as tx:
                lost = await presence.note(tx, self.node, part, self._clock())
            for device_id, change in part.items():
                if self._changes.get(device_id) is change:
                    del self._changes[device_id]
            self._give_up(lost)
        if self._unsure:
            self._unsure = False
            try:
                await self._hold()
            except BaseException:
                self._unsure = True
                raise

    async def _hold(self) -> None:
        # What comes and goes meanwhile is settled by the next `note`, after this.
        live = iter(list(self._live.items()))
        while part := dict(islice(live, MOST_AT_ONCE)):
            async with self._database.begin() as tx:
                lost = await presence.hold(tx, self.node, part, self._clock())
            self._give_up(lost)

    def _give_up(self, lost: Iterable[Lost]) -> None:
        for each in lost:
            self.taken(each)

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        next_beat = 0.0
        away = False
        while True:
            try:
                if loop.time() >= next_beat:
                    async with self._database.begin() as tx:
                        await presence.beat(tx, self.node)
                    next_beat = loop.time() + BEAT_EVERY
                await self.flush()
                away = False
            except Refusal as refusal:
                if not away:  # once, and not for each try
                    log.get().warning("presence.flush", outcome="failed", reason=str(refusal.reason))
                next_beat, away = 0.0, True
            except Exception:  # noqa: BLE001 - or nobody would be seen any more
                log.get().exception("presence.flush", outcome="failed", reason="internal")
                next_beat = 0.0
            await asyncio.sleep(FLUSH_EVERY)


@asynccontextmanager
async def present(
    database: Database, on_taken_over: TakenOver = lambda _identity, _device_id: None
) -> AsyncIterator[Presence]:
    """A `Presence` that writes as long as the block runs, and says goodbye at its end."""
    who = Presence(database, on_taken_over)
    async with database.begin() as tx:
        await presence.beat(tx, who.node)
    task = asyncio.create_task(who.run(), name="presence")
    try:
        yield who
    finally:
        await tasks.end(task)
        with suppress(Refusal):
            await who.flush()
            async with database.begin() as tx:
                await presence.leave(tx, who.node)
