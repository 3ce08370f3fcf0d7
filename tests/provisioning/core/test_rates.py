import pytest

from provisioning.core.rates import Rates


class Clock:
    now = 1_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.mark.parametrize("limit", [1, 3, 7, 10, 20, 49])
def test_so_many_at_once_and_not_one_more(limit: int, clock: Clock) -> None:
    rates = Rates(limit, clock=clock)
    assert [rates.take("a") for _ in range(limit + 3)] == [True] * limit + [False] * 3
    assert rates.take("b"), "each key has its own"


def test_turns_come_back_with_time(clock: Clock) -> None:
    rates = Rates(10, clock=clock)
    while rates.take("a"):
        pass
    clock.now += 0.3
    assert [rates.take("a") for _ in range(4)] == [True, True, True, False]
    clock.now += 60
    assert sum(rates.take("a") for _ in range(30)) == 10, "a long rest is not saved up"


def test_the_long_run_keeps_the_rate(clock: Clock) -> None:
    rates = Rates(10, clock=clock)
    taken = 0
    for _ in range(10_000):
        clock.now += 0.01
        taken += rates.take("a")
    assert 1_000 <= taken <= 1_010


def test_zero_is_no_limit(clock: Clock) -> None:
    rates = Rates(0, clock=clock)
    assert all(rates.take("a") for _ in range(1_000))


def test_less_than_one_a_second(clock: Clock) -> None:
    rates = Rates(0.2, clock=clock)
    assert [rates.take("a") for _ in range(2)] == [True, False]
    clock.now += 4.9
    assert not rates.take("a")
    clock.now += 0.2
    assert rates.take("a")


def test_memory_is_bounded_and_the_busy_are_remembered(clock: Clock) -> None:
    rates = Rates(1, clock=clock, size=10)
    assert rates.take("first")
    for n in range(9):
        rates.take(n)
    assert not rates.take("first")
    rates.take("one more")
    assert rates.take("first"), "who came longest ago is forgotten"
