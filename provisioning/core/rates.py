"""How often somebody may come: so many times a second, in bounded memory."""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Final

LARGEST: Final = 100_000


class Rates:
    """`per_second` turns a second for each key, and as many at once after a quiet second; 0: no limit.

    The generic cell rate algorithm (ITU-T I.371): one number for each key, the moment by which all its turns are paid
    for. At most `size` keys are remembered; those that came longest ago are forgotten first.
    """

    def __init__(self, per_second: float, *, clock: Callable[[], float], size: int = LARGEST) -> None:
        self._cost = 1 / per_second if per_second else 0.0
        self._clock = clock
        self._size = size
        self._paid: OrderedDict[Hashable, float] = OrderedDict()

    def take(self, key: Hashable) -> bool:
        """One more turn for `key`; False: not now, and it does not count."""
        if not self._cost:
            return True
        now = self._clock()
        paid = max(self._paid.get(key, now), now) + self._cost
        if paid > now + max(1.0, self._cost) + 1e-9:  # rounding must not cost the last turn
            return False
        self._paid[key] = paid
        self._paid.move_to_end(key)
        if len(self._paid) > self._size:
            self._paid.popitem(last=False)
        return True
