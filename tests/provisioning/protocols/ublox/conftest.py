"""A service with an account, and its client."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from functools import cache

import pytest

from provisioning.app import Running
from provisioning.core import pki
from provisioning.model.account import Account
from provisioning.store import accounts
from provisioning.store.accounts import TokenKey
from tests.conftest import Serve
from tests.ublox import Client, client, make_account


@cache
def token_key() -> str:
    """What signs AuthTokens, once for all tests: it takes a while to make one."""
    return pki.write_key(pki.new_key(pki.KeyType.RSA2048))


@pytest.fixture
async def running(serve: Serve) -> Running:
    """A service that does not count requests."""
    found = await serve(ublox={"rate": 0})
    async with found.database.begin() as tx:
        await accounts.add_token_key(tx, TokenKey("of-all-tests", token_key(), datetime.now(UTC)))
    return found


@pytest.fixture
async def account(running: Running) -> Account:
    return await make_account(running.database)


@pytest.fixture
async def api(running: Running, account: Account) -> AsyncIterator[Client]:
    """A client of `account` that has authenticated."""
    async with client(running) as found:
        yield await found.authenticate()
