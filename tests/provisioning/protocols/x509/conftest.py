"""The certificate services on real sites, and the log that they write."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog

from provisioning.store.database import Database
from tests.devices import DEVICE, PRODUCT
from tests.pki_site import Served, load, pki_site

Lines = list[Any]


@pytest.fixture
async def served(database: Database, tmp_path: Path) -> AsyncIterator[Served]:
    """Devices `dk1` (asset `asset1`, secret `ds1`) and `dk2` of the product `pk1`."""
    second = DEVICE | {"deviceKey": "dk2", "deviceSecret": "ds2", "assetId": "asset2"}
    await load(database, PRODUCT, DEVICE | {"assetId": "asset1"}, second)
    async with pki_site(database, tmp_path) as site:
        yield site


@pytest.fixture
def lines() -> Iterator[Lines]:
    """The structured log of this process, while the test runs."""
    before = structlog.get_config()
    structlog.reset_defaults()  # another test may have set a level
    with structlog.testing.capture_logs() as captured:
        yield captured
    structlog.configure(**before)
