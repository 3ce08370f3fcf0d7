"""How soon a device may come again."""

from collections import OrderedDict
from collections.abc import Callable

from provisioning.model.identity import Identity
from provisioning.model.refusal import Reason, Refusal


class Intervals:
    """When each device was last let in; those whose time is over are forgotten."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._again: OrderedDict[Identity, float] = OrderedDict()
        """From which moment on; in the order in which they came, which for one interval is that of the moments."""

    def __len__(self) -> int:
        return len(self._again)

    def keep(self, identity: Identity, interval: float) -> None:
        """The device is let in, and not again for `interval` seconds.

        Raises:
            Refusal: RATE_LIMITED, when it was let in too short a time ago; that does not count.
        """
        now = self._clock()
        while self._again and next(iter(self._again.values())) <= now:
            self._again.popitem(last=False)
        until = self._again.get(identity, now)
        if until > now:
            raise Refusal(Reason.RATE_LIMITED, seconds=round(until - now, 1))
        self._again.pop(identity, None)
        self._again[identity] = now + interval
