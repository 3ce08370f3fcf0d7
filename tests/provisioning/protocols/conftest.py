"""What the tests of all doors share: the log as it was written, and a database that goes away."""

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import pytest
import structlog

Lines = list[Any]
Away = Callable[[], AbstractAsyncContextManager[None]]


@pytest.fixture
def lines() -> Iterator[Lines]:
    """The structured log of this process, while the test runs."""
    before = structlog.get_config()
    structlog.reset_defaults()  # another test may have set a level
    with structlog.testing.capture_logs() as captured:
        yield captured
    structlog.configure(**before)


@pytest.fixture
def away(postgres: str, database_url: str) -> Away:
    """`async with away():` nobody gets at the test's database."""
    name = urlsplit(database_url).path.lstrip("/")

    @asynccontextmanager
    async def gone() -> AsyncIterator[None]:
        connection = await asyncpg.connect(postgres)
        try:
            await connection.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
            await connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1", name)
            yield
        finally:
            await connection.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
            await connection.close()

    return gone
