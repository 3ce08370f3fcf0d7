"""Deadlines of very many connections, for the price of one timer."""

import asyncio
from math import ceil
from typing import Final, Protocol

TICK: Final = 0.1


class Timed(Protocol):
    slot: int
    """Where the wheel keeps it; 0: nowhere."""

    def expired(self, now: float) -> float | None:
        """The deadline has come. Returns the next one, None: there is none any more."""
        ...


class Deadlines:
    """Buckets of 0.1 s. A connection sits in one bucket; activity only sets a time stamp that `expired` looks at."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._buckets: dict[int, set[Timed]] = {}
        self._handle: asyncio.TimerHandle | None = None
        self._last = int(loop.time() / TICK)

    def set(self, timed: Timed, deadline: float) -> None:
        """Replace the deadline of `timed`; in seconds of the loop's clock."""
        self.drop(timed)
        timed.slot = max(ceil(deadline / TICK), self._last + 1)
        self._buckets.setdefault(timed.slot, set()).add(timed)
        if self._handle is None:
            self._last = int(self._loop.time() / TICK)
            self._handle = self._loop.call_later(TICK, self._tick)

    def drop(self, timed: Timed) -> None:
        if timed.slot:
            bucket = self._buckets.get(timed.slot)
            if bucket is not None:
                bucket.discard(timed)
                if not bucket:
                    del self._buckets[timed.slot]
            timed.slot = 0

    def _tick(self) -> None:
        now = self._loop.time()
        current = int(now / TICK)
        for slot in range(self._last + 1, current + 1):
            self._last = slot
            for timed in self._buckets.pop(slot, ()):
                timed.slot = 0
                if (following := timed.expired(now)) is not None:
                    self.set(timed, following)
        self._handle = self._loop.call_later(TICK, self._tick) if self._buckets else None

    def close(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None
        self._buckets.clear()
