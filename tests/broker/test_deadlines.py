"""Many deadlines, one timer."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from broker.deadlines import TICK, Deadlines
from tests.conftest import until

pytestmark = pytest.mark.slow


class Timed:
    def __init__(self, then: Callable[[float], float | None] = lambda _: None) -> None:
        self.slot = 0
        self.then = then
        self.expiries: list[float] = []

    def expired(self, now: float) -> float | None:
        self.expiries.append(now)
        return self.then(now)


@pytest.fixture
async def deadlines() -> AsyncIterator[Deadlines]:
    wheel = Deadlines(asyncio.get_running_loop())
    yield wheel
    wheel.close()


def now() -> float:
    return asyncio.get_running_loop().time()


async def test_expires_once_and_in_time(deadlines: Deadlines) -> None:
    timed = Timed()
    at = now() + 0.25
    deadlines.set(timed, at)
    assert len(deadlines) == 1
    await until(lambda: timed.expiries, "the deadline")
    assert at <= timed.expiries[0] < at + 3 * TICK
    await asyncio.sleep(2 * TICK)
    assert len(timed.expiries) == 1
    assert not deadlines._buckets
    assert deadlines._handle is None, "the timer rests when there is nothing to wait for"


@pytest.mark.parametrize("ago", [0.0, 0.05, 1.0, 1e6])
async def test_a_deadline_that_has_passed_still_comes(deadlines: Deadlines, ago: float) -> None:
    timed, later = Timed(), Timed()
    deadlines.set(timed, now() - ago)
    await until(lambda: timed.expiries, "the deadline")
    deadlines.set(later, now() + 60)
    deadlines.set(timed, now() - ago)
    await until(lambda: len(timed.expiries) == 2, "the deadline beside a running timer")


async def test_set_again_replaces(deadlines: Deadlines) -> None:
    timed = Timed()
    deadlines.set(timed, now() + 60)
    deadlines.set(timed, now() + 0.1)
    assert len(deadlines) == 1
    await until(lambda: timed.expiries, "the later one of the two settings")
    assert not deadlines._buckets


async def test_dropped_never_comes(deadlines: Deadlines) -> None:
    timed, other = Timed(), Timed()
    deadlines.set(timed, now() + 0.1)
    deadlines.set(other, now() + 0.2)
    deadlines.drop(timed)
    deadlines.drop(timed)
    await until(lambda: other.expiries, "the other")
    assert timed.expiries == []
    assert timed.slot == 0


async def test_what_expires_may_drop_and_move_its_neighbours(deadlines: Deadlines) -> None:
    """Closing one connection may end another of the same bucket."""
    at = now() + 0.15
    group = [Timed() for _ in range(3)]

    def first(moment: float) -> None:
        if sum(len(timed.expiries) for timed in group) == 1:
            alive = [timed for timed in group if not timed.expiries]
            deadlines.drop(alive[0])
            deadlines.set(alive[1], moment + 0.3)

    for timed in group:
        timed.then = first
        deadlines.set(timed, at)
    await until(lambda: sum(len(timed.expiries) for timed in group) == 2, "the first and the moved one")
    assert sorted(len(timed.expiries) for timed in group) == [0, 1, 1]
    assert max(t.expiries[0] for t in group if t.expiries) >= at + 0.2
    assert not deadlines._buckets


async def test_the_next_deadline_may_be_now(deadlines: Deadlines) -> None:
    timed = Timed()
    timed.then = lambda moment: moment if len(timed.expiries) < 3 else None
    deadlines.set(timed, now())
    await until(lambda: len(timed.expiries) == 3, "three ticks")
    assert not deadlines._buckets


async def test_one_failure_does_not_stop_the_others(deadlines: Deadlines) -> None:
    def fail(moment: float) -> float | None:
        raise RuntimeError("broken")

    seen: list[dict[str, Any]] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: seen.append(context))
    try:
        good = [Timed(), Timed()]
        for timed in (good[0], Timed(fail), good[1]):
            deadlines.set(timed, now() + 0.1)
        await until(lambda: all(timed.expiries for timed in good), "the others")
    finally:
        loop.set_exception_handler(None)
    assert str(seen[0]["exception"]) == "broken"


async def test_ten_thousand_cost_one_timer(deadlines: Deadlines) -> None:
    loop = asyncio.get_running_loop()
    timers = len(loop._scheduled)  # type: ignore[attr-defined]
    many = [Timed() for _ in range(10_000)]
    for number, timed in enumerate(many):
        deadlines.set(timed, now() + 30 + number / 1_000)
    assert len(loop._scheduled) == timers + 1  # type: ignore[attr-defined]
    for timed in many:
        deadlines.drop(timed)
    assert not deadlines._buckets


async def test_close(deadlines: Deadlines) -> None:
    timed = Timed()
    deadlines.set(timed, now())
    deadlines.close()
    assert (timed.slot, len(deadlines)) == (0, 0)
    deadlines.drop(timed)
    await asyncio.sleep(2 * TICK)
    assert timed.expiries == []
