"""AWS for the tests that need it: one stand-in for the whole run, empty at the beginning of each test."""

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.aws import Account


@pytest.fixture(scope="session")
async def _aws() -> "AsyncIterator[Account]":
    from tests.aws import served  # most runs do without: half a second

    async with served() as account:
        yield account


@pytest.fixture
async def aws(_aws: "Account") -> "Account":
    await _aws.reset()
    return _aws
