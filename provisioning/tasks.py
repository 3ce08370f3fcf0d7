"""Tasks that run until they are told to end."""

import asyncio
from typing import Any, Final

AGAIN: Final = 0.2
"""Seconds after which a task that goes on is told again."""


async def end(task: "asyncio.Task[Any]") -> None:
    """Cancel a task, and wait until it has ended.

    Once is not enough: a library may lose a cancellation, or an error of its own may take its place, as when the
    database goes away in the middle of a statement.

    Raises:
        Exception: what the task ended with, if it did not end by this.
    """
    while not task.done():
        task.cancel()
        await asyncio.wait([task], timeout=AGAIN)
    if not task.cancelled() and (error := task.exception()) is not None:
        raise error
