"""Identities that were refused too often.

Only refusals count, and only from the address that was refused: nobody can lock a device out from elsewhere, and a
device that reconnects at once after its activation is never late (EnOS reference, 8.3).
"""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Final

LARGEST: Final = 100_000


class Blocker:
    """`refusals` within `window` seconds block a key for `duration` seconds; 0 refusals: never."""

    def __init__(
        self, *, refusals: int, window: float, duration: float, clock: Callable[[], float], size: int = LARGEST
    ) -> None:
        self._refusals = refusals
        self._window = window
        self._duration = duration
        self._clock = clock
        self._size = size
        self._counts: OrderedDict[Hashable, tuple[int, float]] = OrderedDict()
        self._blocked: OrderedDict[Hashable, float] = OrderedDict()

    def is_blocked(self, key: Hashable) -> bool:
        until = self._blocked.get(key)
        if until is None:
            return False
        if self._clock() < until:
            return True
        del self._blocked[key]
        return False

    def refused(self, key: Hashable) -> None:
        """Count a refusal."""
        if not self._refusals:
            return
        now = self._clock()
        count, since = self._counts.pop(key, (0, now))
        if now - since >= self._window:
            count, since = 0, now
        if count + 1 < self._refusals:
            self._counts[key] = count + 1, since
            if len(self._counts) > self._size:
                self._counts.popitem(last=False)
        else:
            self._blocked[key] = now + self._duration
            if len(self._blocked) > self._size:
                self._blocked.popitem(last=False)
