"""Who is connected, told to the database now and then: a row per device and moment would cost more than a login."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from itertools import islice
from typing import Final
from uuid import uuid4

from provisioning import log
from provisioning.model.refusal import Refusal
from provisioning.store import presence
from provisioning.store.database import Database

FLUSH_EVERY: Final = 0.5
BEAT_EVERY: Final = 5.0
MOST_AT_ONCE: Final = 5_000


class Presence:
    """Collects who came and went; `run` writes it. What the database misses is told later."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.node = uuid4()
        self._changes: dict[int, tuple[bool, datetime]] = {}

    @property
    def depth(self) -> int:
        return len(self._changes)

    def came(self, device_id: int) -> None:
        self._changes[device_id] = (True, datetime.now(UTC))

    def went(self, device_id: int) -> None:
        self._changes[device_id] = (False, datetime.now(UTC))

    async def flush(self) -> None:
        """Write what has been collected.

        Raises:
            Refusal: UNAVAILABLE; what was not written is kept.
        """
        while self._changes:
            part = dict(islice(self._changes.items(), MOST_AT_ONCE))
            async with self._database.begin() as tx:
                await presence.note(tx, self.node, part)
            for device_id, change in part.items():
                if self._changes.get(device_id) is change:
                    del self._changes[device_id]

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        next_beat = 0.0
        while True:
            try:
                if loop.time() >= next_beat:
                    async with self._database.begin() as tx:
                        await presence.beat(tx, self.node)
                    next_beat = loop.time() + BEAT_EVERY
                await self.flush()
            except Refusal as refusal:
                log.get().warning("presence.flush", outcome="failed", reason=str(refusal.reason))
                next_beat = 0.0
            except Exception:  # noqa: BLE001 - or nobody would be seen any more
                log.get().exception("presence.flush", outcome="failed", reason="internal")
                next_beat = 0.0
            await asyncio.sleep(FLUSH_EVERY)


@asynccontextmanager
async def present(database: Database) -> AsyncIterator[Presence]:
    """A `Presence` that writes as long as the block runs, and says goodbye at its end."""
    who = Presence(database)
    async with database.begin() as tx:
        await presence.beat(tx, who.node)
    task = asyncio.create_task(who.run(), name="presence")
    try:
        yield who
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        with suppress(Refusal):
            await who.flush()
            async with database.begin() as tx:
                await presence.leave(tx, who.node)
