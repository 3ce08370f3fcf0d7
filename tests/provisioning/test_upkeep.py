"""provisioning/upkeep.py"""

import asyncio

import pytest

from provisioning import upkeep
from provisioning.app import Running
from provisioning.store import events
from tests.conftest import load_rows, until
from tests.devices import DEVICE, PRODUCT
from tests.provisioning.store.registry import execute

pytestmark = pytest.mark.server


async def test_old_events_go(service: Running) -> None:
    await load_rows(service, PRODUCT, DEVICE)
    await execute(service.database, "UPDATE event SET at = now() - interval '31 days'")
    pruning = asyncio.create_task(upkeep.prune(service.database, 30))

    async def none_left() -> bool:
        async with service.database.read() as tx:
            return await events.page(tx) == []

    await until(none_left, "the pruning")
    pruning.cancel()
    with pytest.raises(asyncio.CancelledError):
        await pruning
