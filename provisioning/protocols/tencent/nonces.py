"""Which proofs were used already.

The memory is this process's own. Behind one address several processes may serve a repetition each: it shows them
nothing but what its sender has seen before, or nothing at all while `tencent.reregister` is `deny`. Only with `rotate`
would a repetition within the window cost the device its session, once for each process.
"""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Final

LARGEST: Final = 100_000


class Nonces:
    """Remembers proofs for `window` seconds; at most `size` of them, the oldest are forgotten first.

    Only what is proven may be put here: a stranger must not be able to push out what others have used.
    """

    def __init__(self, *, window: float, clock: Callable[[], float], size: int = LARGEST) -> None:
        self._window = window
        self._clock = clock
        self._size = size
        self._until: OrderedDict[Hashable, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._until)

    def use(self, proof: Hashable) -> bool:
        """True: it is used for the first time in the window."""
        now = self._clock()
        while self._until and next(iter(self._until.values())) <= now:
            self._until.popitem(last=False)
        if proof in self._until:
            return False
        self._until[proof] = now + self._window
        if len(self._until) > self._size:
            self._until.popitem(last=False)
        return True
