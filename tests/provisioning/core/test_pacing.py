import pytest

from provisioning.core.pacing import Intervals
from provisioning.model.identity import Identity
from provisioning.model.refusal import Reason, Refusal

ONE, OTHER = Identity("p", "pk", "one"), Identity("p", "pk", "other")


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_device_waits_for_its_interval() -> None:
    clock = Clock()
    intervals = Intervals(clock)
    intervals.keep(ONE, 5)
    intervals.keep(OTHER, 5)
    clock.now += 4.9
    for _ in range(3):
        with pytest.raises(Refusal) as caught:
            intervals.keep(ONE, 5)
        assert (caught.value.reason, caught.value.detail) == (Reason.RATE_LIMITED, {"seconds": 0.1})
    clock.now += 0.1
    intervals.keep(ONE, 5)
    with pytest.raises(Refusal):
        intervals.keep(ONE, 5)


def test_what_is_over_is_forgotten() -> None:
    clock = Clock()
    intervals = Intervals(clock)
    for number in range(100):
        intervals.keep(Identity("p", "pk", str(number)), 5)
        clock.now += 1
    assert len(intervals) == 5
