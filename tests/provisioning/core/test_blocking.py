import pytest

from provisioning.core.blocking import Blocker


class Clock:
    now = 1_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def blocker(clock: Clock) -> Blocker:
    return Blocker(refusals=4, window=120, duration=300, clock=clock, size=3)


def refuse(blocker: Blocker, key: str, times: int = 1) -> None:
    for _ in range(times):
        blocker.refused(key)


def test_the_fourth_refusal_blocks_and_time_frees(blocker: Blocker, clock: Clock) -> None:
    refuse(blocker, "a", 3)
    assert not blocker.is_blocked("a")
    refuse(blocker, "a")
    assert blocker.is_blocked("a")
    assert not blocker.is_blocked("b")
    clock.now += 299
    assert blocker.is_blocked("a")
    clock.now += 1
    assert not blocker.is_blocked("a")
    refuse(blocker, "a", 3)
    assert not blocker.is_blocked("a")


def test_refusals_are_forgotten_when_the_window_has_passed(blocker: Blocker, clock: Clock) -> None:
    refuse(blocker, "a", 3)
    clock.now += 120
    refuse(blocker, "a", 3)
    assert not blocker.is_blocked("a")
    refuse(blocker, "a")
    assert blocker.is_blocked("a")


def test_strangers_do_not_fill_the_memory(blocker: Blocker) -> None:
    for i in range(100):
        refuse(blocker, f"once{i}")
        refuse(blocker, f"often{i}", 4)
    assert len(blocker._counts) <= 3
    assert len(blocker._blocked) == 3
    assert blocker.is_blocked("often99")


def test_who_is_refused_again_is_kept_longest(blocker: Blocker) -> None:
    refuse(blocker, "a", 3)
    refuse(blocker, "b")
    refuse(blocker, "c")
    refuse(blocker, "b")
    refuse(blocker, "d")
    refuse(blocker, "a")
    assert not blocker.is_blocked("a"), "the one that was refused longest ago is forgotten first"
    refuse(blocker, "b", 2)
    assert blocker.is_blocked("b")


def test_zero_never_blocks(clock: Clock) -> None:
    blocker = Blocker(refusals=0, window=1, duration=1, clock=clock)
    refuse(blocker, "a", 100)
    assert not blocker.is_blocked("a")


def test_one_blocks_at_once(clock: Clock) -> None:
    blocker = Blocker(refusals=1, window=1, duration=1, clock=clock)
    refuse(blocker, "a")
    assert blocker.is_blocked("a")
