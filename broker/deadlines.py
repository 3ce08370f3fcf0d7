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

    def __len__(self) -> int:
        return sum(map(len, self._buckets.values()))

    def time(self) -> float:
        """Now, in seconds of the loop's clock."""
        return self._loop.time()

    def set(self, timed: Timed, deadline: float) -> None:
        """Replace the deadline of `timed`; in seconds of the loop's clock. One that has passed comes at once."""
        self.drop(timed)
        if self._handle is None:
            self._last = int(self._loop.time() / TICK)
            self._handle = self._loop.call_later(TICK, self._tick)
        timed.slot = max(ceil(deadline / TICK), self._last + 1)
        self._buckets.setdefault(timed.slot, set()).add(timed)

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
        for slot in range(self._last + 1, int(now / TICK) + 1):
            self._last = slot
            # One by one: what expires may drop or move others of the same bucket.
            while bucket := self._buckets.get(slot):
                timed = next(iter(bucket))
                self.drop(timed)
                self._expire(timed, now)
        self._handle = self._loop.call_later(TICK, self._tick) if self._buckets else None

    def _expire(self, timed: Timed, now: float) -> None:
        try:
            following = timed.expired(now)
        except Exception as error:  # noqa: BLE001 - the others have deadlines too
            self._loop.call_exception_handler({"message": f"deadline of {timed!r} failed", "exception": error})
            return
        if following is not None:
            self.set(timed, following)

    def close(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None
        for bucket in self._buckets.values():
            for timed in bucket:
                timed.slot = 0
        self._buckets.clear()
