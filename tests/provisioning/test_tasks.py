"""provisioning/tasks.py"""

import asyncio
from contextlib import suppress

import pytest

from provisioning import tasks


async def test_a_task_that_loses_a_cancellation_is_told_again() -> None:
    lost = 0

    async def deaf() -> None:
        nonlocal lost
        for _ in range(2):
            with suppress(asyncio.CancelledError):
                await asyncio.Event().wait()
            lost += 1
        await asyncio.Event().wait()

    task = asyncio.create_task(deaf())
    await asyncio.sleep(0)
    await tasks.end(task)
    assert (task.cancelled(), lost) == (True, 2)


async def test_what_it_ended_with_is_not_lost() -> None:
    async def fails() -> None:
        raise ValueError("no")

    task = asyncio.create_task(fails())
    await asyncio.wait([task])
    with pytest.raises(ValueError, match="no"):
        await tasks.end(task)


async def test_one_that_has_ended_is_left_alone() -> None:
    async def nothing() -> None:
        pass

    task = asyncio.create_task(nothing())
    await task
    await tasks.end(task)
