"""An authority and a device, for tests of certificates."""

import pytest

from provisioning.core import ca
from provisioning.model.certificate import Authority
from provisioning.model.registry import Device
from provisioning.store.database import Database
from tests.certificates import (
    KEY,
    NOW,
    add_device,
)

pytestmark = pytest.mark.server


@pytest.fixture
async def authority(database: Database) -> Authority:
    async with database.begin() as tx:
        return await ca.ensure_default(tx, KEY, now=NOW)


@pytest.fixture
async def device(database: Database) -> Device:
    return await add_device(database)
