import json

import pytest

from tests.devices import PRODUCT
from tests.provisioning.cli.conftest import Command

pytestmark = pytest.mark.server


async def test_every_page_and_nothing_twice(command: Command) -> None:
    rows = [
        PRODUCT,
        *({"type": "device", "protocol": "enos", "productKey": "pk1", "deviceKey": f"d{n}"} for n in range(2_100)),
    ]
    await command("import", "-", stdin="\n".join(map(json.dumps, rows)).encode())
    keys = [row["key"] for row in (await command("device", "list", "--json")).rows]
    assert keys == [f"d{n}" for n in range(2_100)]
    limited = await command("device", "list", "--json", "--limit", "1500")
    assert [row["key"] for row in limited.rows] == keys[:1_500]
