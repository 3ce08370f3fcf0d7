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
    """`run` gets up to `limit` items and returns as many results in their order; an exception of it goes to all of them."""

    def __init__(
        self, run: Callable[[Sequence[T]], Awaitable[Sequence[R]]], *, limit: int = 500, concurrency: int = 2
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
        except BaseException as error:
            for _, future in batch:
                if not future.done():
                    future.set_exception(error) if isinstance(error, Exception) else future.cancel()
            if not isinstance(error, Exception):
                raise
        else:
            for (_, future), result in zip(batch, results, strict=True):
                if not future.done():
                    future.set_result(result)
        finally:
            self._free += 1
            self._start()

    async def close(self) -> None:
        """Serve what was submitted, then return."""
        while self._tasks or self._waiting:
            self._start()
            await asyncio.gather(*self._tasks, return_exceptions=True)
