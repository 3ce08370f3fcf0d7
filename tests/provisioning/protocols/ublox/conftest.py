"""A service with an account, and its client."""

from collections.abc import AsyncIterator

import pytest

from provisioning.app import Running
from provisioning.model.account import Account
from tests.conftest import Serve
from tests.ublox import Client, client, make_account


@pytest.fixture
async def running(serve: Serve) -> Running:
    """A service that does not count requests."""
    return await serve(ublox={"rate": 0})


@pytest.fixture
async def account(running: Running) -> Account:
    return await make_account(running.database)


@pytest.fixture
async def api(running: Running, account: Account) -> AsyncIterator[Client]:
    """A client of `account` that has authenticated."""
    async with client(running) as found:
        yield await found.authenticate()
