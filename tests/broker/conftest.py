"""The listener and the embedded broker, without a database."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest
from structlog.testing import LogCapture

from tests.broker.door import Door, lines, open_door

__all__ = ["lines"]

OpenDoor = Callable[..., Awaitable[Door]]


@pytest.fixture
async def opened(lines: LogCapture) -> AsyncIterator[OpenDoor]:
    """Open doors with settings of the test's own: `await opened(limits={"connect_timeout": 0.2})`."""
    async with AsyncExitStack() as stack:

        async def start(**settings: Any) -> Door:
            return await stack.enter_async_context(open_door(lines, **settings))

        yield start


@pytest.fixture
async def door(opened: OpenDoor) -> Door:
    return await opened()
