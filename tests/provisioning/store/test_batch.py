import asyncio
from collections.abc import Sequence

import pytest

from provisioning.store.batch import Batcher
from tests.conftest import until


class Work:
    """Doubles numbers; holds each batch until it is let go."""

    def __init__(self, *, held: bool = False) -> None:
        self.batches: list[list[int]] = []
        self.gate = asyncio.Event()
        self.running = self.most = 0
        if not held:
            self.gate.set()

    async def __call__(self, items: Sequence[int]) -> list[int | Exception]:
        self.batches.append(list(items))
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            await self.gate.wait()
            await asyncio.sleep(0)  # as any real work, it gives others their turn
        finally:
            self.running -= 1
        return [2 * item for item in items]


async def test_what_comes_in_one_turn_goes_together() -> None:
    work = Work()
    batcher = Batcher(work)
    assert await asyncio.gather(*(batcher.submit(i) for i in range(10))) == [2 * i for i in range(10)]
    assert work.batches == [list(range(10))]


async def test_what_comes_meanwhile_waits_for_the_next_batch() -> None:
    work = Work(held=True)
    batcher = Batcher(work, concurrency=1)
    first = batcher.submit(1)
    await until(lambda: work.running == 1, "the first batch")
    rest = [batcher.submit(i) for i in range(2, 5)]
    assert batcher.depth == 3
    work.gate.set()
    assert await asyncio.gather(first, *rest) == [2, 4, 6, 8]
    assert work.batches == [[1], [2, 3, 4]]
    assert batcher.depth == 0


async def test_limits_hold() -> None:
    work = Work()
    batcher = Batcher(work, limit=3, concurrency=2)
    assert await asyncio.gather(*(batcher.submit(i) for i in range(10))) == [2 * i for i in range(10)]
    assert [len(batch) for batch in work.batches] == [3, 3, 3, 1]
    assert work.most == 2


async def test_an_error_goes_to_everybody_in_the_batch_and_ends_there() -> None:
    async def run(items: Sequence[int]) -> list[int | Exception]:
        if 1 in items:
            raise ConnectionError("away")
        return list(items)

    batcher = Batcher(run, limit=2, concurrency=1)
    results = await asyncio.gather(*(batcher.submit(i) for i in range(4)), return_exceptions=True)
    assert [str(result) for result in results] == ["away", "away", "2", "3"]
    assert await batcher.submit(5) == 5


async def test_an_exception_among_the_results_is_for_its_own_waiter() -> None:
    async def run(items: Sequence[int]) -> list[int | Exception]:
        return [ValueError("odd") if item % 2 else item for item in items]

    batcher = Batcher(run)
    results = await asyncio.gather(*(batcher.submit(i) for i in range(3)), return_exceptions=True)
    assert [str(result) for result in results] == ["0", "odd", "2"]


async def test_a_result_too_few_leaves_nobody_waiting() -> None:
    async def run(items: Sequence[int]) -> list[int | Exception]:
        return list(items[:-1])

    batcher = Batcher(run)
    results = await asyncio.gather(*(batcher.submit(i) for i in range(2)), return_exceptions=True)
    assert results[0] == 0
    assert isinstance(results[1], ValueError)


async def test_who_goes_away_hinders_nobody() -> None:
    work = Work(held=True)
    batcher = Batcher(work, concurrency=1)
    gone, stays = batcher.submit(1), batcher.submit(2)
    await until(lambda: work.running == 1, "the batch")
    not_yet_begun, waits = batcher.submit(3), batcher.submit(4)
    gone.cancel()
    not_yet_begun.cancel()
    work.gate.set()
    assert await stays == 4
    assert await waits == 8


async def test_close_serves_what_was_submitted() -> None:
    work = Work()
    batcher = Batcher(work, limit=1, concurrency=1)
    waiting = [batcher.submit(i) for i in range(5)]
    await batcher.close(5)
    assert [future.result() for future in waiting] == [0, 2, 4, 6, 8]


async def test_close_of_a_quiet_batcher_returns_at_once() -> None:
    await Batcher(Work()).close(0)


async def test_close_gives_up_what_does_not_end() -> None:
    work = Work(held=True)
    batcher = Batcher(work, limit=1, concurrency=1)
    waiting = [batcher.submit(i) for i in range(3)]
    await batcher.close(0.05)
    assert all(future.cancelled() for future in waiting)
    assert work.batches == [[0]]
    assert work.running == 0
    with pytest.raises(asyncio.CancelledError):
        await waiting[0]
