import json
from pathlib import Path

import pytest

from tests.provisioning.cli.conftest import Command

pytestmark = pytest.mark.server

TOKEN = "PRODTOKEN1"
ROWS = [
    {"type": "product", "protocol": "ioto", "productToken": TOKEN, "name": "Sensor"},
    {"type": "device", "protocol": "ioto", "id": "D1", "productToken": TOKEN},
    {
        "type": "device", "protocol": "ioto", "id": "D2", "productToken": TOKEN, "accountId": "ACC2",
        "cloudType": "dedicated",
    },
]  # fmt: skip


@pytest.fixture
async def filled(command: Command, tmp_path: Path) -> Command:
    file = tmp_path / "rows.ndjson"
    file.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    done = await command("import", str(file), "--json")
    assert done.rows[-1]["summary"]["created"] == 3
    return command


async def test_claim_and_release(filled: Command) -> None:
    done = await filled("claim", "D1", "--account", "ACC1", "--cloud", "west", "--cloud-type", "dedicated")
    assert done.out == "D1 belongs to account ACC1\n"
    await filled("claim", "D1", "--account", "ACC1", "--cloud", "west", "--cloud-type", "dedicated")
    shown = (await filled("claim", "D1", "--show", "--json")).row
    assert (shown["account"], shown["cloud"], shown["cloud_type"], shown["cloud_region"], shown["state"]) == (
        "ACC1", "west", "dedicated", "local", "allocated",
    )  # fmt: skip
    assert (await filled("release", "D1", "--yes")).out == "D1 is released\n"
    assert (await filled("claim", "D1", "--show", "--json")).row["account"] == ""
    assert (await filled("claim", "D1")).out == "D1 belongs to account 00000000000000000000000001\n"
    assert (await filled("release", "D1", "--json")).row["state"] == "registered"


async def test_what_is_wrong_is_said(filled: Command) -> None:
    refused = await filled("claim", "D2", "--account", "ACC1", code=1)
    assert refused.err == (
        "gatehouse: the device is claimed by account ACC2 in cloud main (dedicated, local): cannot claim\n"
    )
    assert (await filled("release", "D1", code=1)).err == "gatehouse: the device is not claimed: cannot release\n"
    assert (await filled("claim", "D9", code=1)).err == "gatehouse: there is no device D9\n"
    assert "accountId must be 1 to 64" in (await filled("claim", "D1", "--account", "a/b", code=1)).err
    assert "cloudType must be hosted or dedicated" in (await filled("claim", "D1", "--cloud-type", "x", code=1)).err
    assert "id must be" in (await filled("claim", "a/b", code=1)).err
    assert "must not be empty" in (await filled("claim", "D1", "--account", "", code=1)).err
    assert "go alone" in (await filled("claim", "D1", "--confirm", "--account", "A", code=2)).err
    assert "not claimed: cannot confirm" in (await filled("claim", "D1", "--confirm", code=1)).err


async def test_confirm(filled: Command) -> None:
    assert (await filled("claim", "D2", "--confirm")).out == "D2 may have another token\n"


async def test_what_is_exported_brings_it_about_again(filled: Command, tmp_path: Path) -> None:
    file = tmp_path / "out.ndjson"
    await filled("export", str(file), "--protocol", "ioto")
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    assert [row.get("id") or row["productToken"] for row in rows] == [TOKEN, "D1", "D2"]
    assert (rows[2]["accountId"], rows[2]["cloudType"], rows[2]["cloudName"]) == ("ACC2", "dedicated", "main")
    again = (await filled("import", str(file), "--json")).rows[-1]["summary"]
    assert (again["unchanged"], again["failed"]) == (3, 0)
    await filled("product", "delete", TOKEN, "--protocol", "ioto", "--cascade", "--yes")
    anew = (await filled("import", str(file), "--json")).rows[-1]["summary"]
    assert (anew["created"], anew["failed"]) == (3, 0)
    assert (await filled("claim", "D2", "--show", "--json")).row["cloud_type"] == "dedicated"


async def test_products_are_named_by_token_or_key(filled: Command) -> None:
    made = (await filled("product", "create", "--protocol", "ioto", "--json")).row
    assert len(made["secret"]) == 26
    assert made["certificate_login"] is True
    shown = (await filled("product", "show", made["secret"], "--protocol", "ioto", "--json")).row
    assert shown["key"] == made["key"]
    await filled("product", "set", made["key"], "--name", "Pump", "--protocol", "ioto")
    assert (await filled("product", "show", made["key"], "--protocol", "ioto", "--json")).row["name"] == "Pump"
    keeps = await filled("product", "set", made["key"], "--secret", "OTHER", "--protocol", "ioto", code=1)
    assert keeps.err == "gatehouse: productToken is not that of product: a product keeps its token\n"
    assert "must not be empty" in (await filled("product", "create", "", "--protocol", "ioto", code=2)).err
    named = (await filled("product", "create", "MINE", "--protocol", "ioto", "--json")).row
    assert (named["secret"], named["key"][0]) == ("MINE", "P")
    assert "product's key" in (await filled("product", "create", named["key"], "--protocol", "ioto", code=2)).err
    assert (
        "give it alone" in (await filled("product", "create", "A", "--secret", "B", "--protocol", "ioto", code=2)).err
    )


async def test_devices_of_such_products(filled: Command) -> None:
    made = (await filled("device", "create", TOKEN, "D3", "--protocol", "ioto", "--json")).row
    assert (made["key"], made["state"], made["secret"]) == ("D3", "registered", "")
    listed = (await filled("device", "list", "--product", TOKEN, "--protocol", "ioto", "--json")).rows
    assert [row["key"] for row in listed] == ["D1", "D2", "D3"]
    assert "already" in (await filled("device", "create", TOKEN, "D3", "--protocol", "ioto", code=1)).err
    await filled("device", "set", TOKEN, "D2", "--name", "Roof", "--protocol", "ioto")
    assert (await filled("device", "show", TOKEN, "D2", "--protocol", "ioto", "--json")).row["name"] == "Roof"
    await filled("device", "delete", TOKEN, "D3", "--protocol", "ioto", "--yes")
    await filled("device", "create", TOKEN, "D3", "--protocol", "ioto")
