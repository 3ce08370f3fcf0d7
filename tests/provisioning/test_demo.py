import json

import pytest

from provisioning.core.importing import import_rows
from provisioning.demo import removal
from provisioning.protocols import protocols
from provisioning.settings import load
from provisioning.store import products
from provisioning.store.database import Database
from tests.conftest import ROOT

FILE = ROOT / "config" / "demo.ndjson"


def test_the_command_that_removes_the_demo_fleet() -> None:
    assert removal([("enos", "pk1"), ("tencent", "T1")]) == (
        "gatehouse product delete pk1 --protocol enos --cascade && "
        "gatehouse product delete T1 --protocol tencent --cascade"
    )


@pytest.mark.server
async def test_the_demo_fleet_has_something_of_each_protocol(database: Database) -> None:
    vendors = protocols(load())
    lines = FILE.read_text("utf-8").split("\n")
    summary = await import_rows(database, lines, {vendor.name: vendor.read_row for vendor in vendors})
    assert not summary.failed, summary.first_failure
    async with database.read() as tx:
        loaded = await products.demo_keys(tx)
    assert {protocol for protocol, _ in loaded} == {vendor.name for vendor in vendors}
    rows = [row for row in map(json.loads, lines[:-1]) if row["type"] in {"product", "account"}]
    stated = {(v.name, v.read_row(row).key) for row in rows for v in vendors if v.name == row["protocol"]}
    assert set(loaded) == stated, "each product says that it is for show"
