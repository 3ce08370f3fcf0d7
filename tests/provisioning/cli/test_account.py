import json
import uuid
from pathlib import Path
from typing import Any

import pytest

from provisioning.core import accounts
from provisioning.model.refusal import Refusal
from provisioning.protocols.ublox.wire import PROTOCOL
from provisioning.store.database import Database
from tests.conftest import Serve
from tests.provisioning.cli.conftest import Command
from tests.ublox import client

pytestmark = pytest.mark.server

UID = "0002000089280087"
PROFILE = "mbYbAX-CoEqE97TMFBsUKQ"
ROOT_SECRET = "0f" * 32


async def imported(command: Command, tmp_path: Path, *rows: dict[str, Any], code: int = 0) -> list[dict[str, Any]]:
    """The result of each row."""
    file = tmp_path / "rows.ndjson"
    file.write_text("".join(json.dumps({"protocol": PROTOCOL} | row) + "\n" for row in rows))
    return (await command("import", str(file), "--json", code=code)).rows


def fleet(key: str) -> list[dict[str, Any]]:
    return [
        {"type": "profile", "apiKey": key, "deviceProfileUID": PROFILE, "profileName": "p", "whitelistCheck": False},
        {
            "type": "device", "apiKey": key, "rotPublicUID": UID, "rootSecret": ROOT_SECRET, "imei": "862618583984360",
            "deviceSerialNumber": "SN1", "name": "Roof", "disabled": True,
        },
        {"type": "device", "apiKey": key, "rotPublicUID": "0002000089280088", "rootSecret": ROOT_SECRET},
    ]  # fmt: skip


async def proves(database: Database, key: str, secret: str) -> bool:
    async with database.read() as tx:
        try:
            await accounts.prove(tx, PROTOCOL, key, secret)
        except Refusal:
            return False
    return True


async def test_the_life_of_an_account(command: Command, database: Database, serve: Serve) -> None:
    done = await command("account", "create", "--name", "Meters", "--json")
    made = done.row
    assert list(made) == ["key", "secret", "name", "strict_e2e", "certificates"]
    assert uuid.UUID(made["key"]).version == 4
    assert (len(made["secret"]), made["secret"].isalnum()) == (32, True)
    assert (made["name"], made["strict_e2e"], made["certificates"]) == ("Meters", False, True)
    plain = await command("account", "create", "mine", "--strict-e2e", "--no-certificates")
    assert [line[0] for line in plain.table] == ["key", "secret", "name", "strict_e2e", "certificates"]
    assert plain.table[3:] == [["strict_e2e", "yes"], ["certificates", "no"]]
    assert plain.err == "the secret is not shown again\n"
    listed = (await command("account", "list", "--json")).rows
    assert [(row["key"], row["devices"]) for row in listed] == sorted([(made["key"], 0), ("mine", 0)])
    assert "secret" not in listed[0]
    assert ["mine", "-", "yes", "no", "0"] in (await command("account", "list")).table

    running = await serve(ublox={"rate": 0})
    async with client(running) as api:
        await api.authenticate(made["key"], made["secret"])
        changed = await command("account", "set", made["key"], "--name", "", "--strict-e2e", "--json")
        assert changed.row == {
            "outcome": "updated", "key": made["key"], "name": "", "strict_e2e": True, "certificates": True,
        }  # fmt: skip
        assert (await command("account", "set", made["key"], "--strict-e2e")).out == f"unchanged {made['key']}\n"
        await api.ok("/apiversion")
        rotated = (await command("account", "rotate", made["key"], "--json")).row
        assert list(rotated) == ["key", "secret"]
        assert rotated["secret"] != made["secret"]
        await api.refused("/apiversion", {}, 401, "Not Authorized.")
        await api.authenticate(made["key"], rotated["secret"])
        assert (await command("account", "delete", made["key"], "--yes")).out == f"deleted account {made['key']}\n"
        await api.refused("/apiversion", {}, 401, "Not Authorized.")
    assert not await proves(database, made["key"], rotated["secret"])


async def test_what_is_wrong_is_one_line(command: Command, database: Database) -> None:
    secret = (await command("account", "create", "mine", "--json")).row["secret"]
    taken = await command("account", "create", "mine", code=1)
    assert taken.err == "gatehouse: there is an account mine already; `gatehouse account set` changes it\n"
    assert await proves(database, "mine", secret), "it keeps its secret"
    for args in (["set", "nobody", "--name", "n"], ["rotate", "nobody"], ["delete", "nobody", "--yes"]):
        assert (await command("account", *args, code=1)).err == "gatehouse: there is no account nobody\n"
    assert "apiKey must be 1 to 64" in (await command("account", "create", "a b", code=1)).err
    assert "name must be 1 to 255" in (await command("account", "set", "mine", "--name", "a\x07", code=1)).err


async def test_products_and_groups_that_are_accounts_and_profiles(command: Command, tmp_path: Path) -> None:
    of = ("--protocol", PROTOCOL)
    await command("account", "create", "mine")
    await imported(command, tmp_path, *fleet("mine"))
    assert [row["key"] for row in (await command("product", "list", *of, "--json")).rows] == ["mine"]
    await command("product", "set", "mine", "--name", "Meters", *of)
    assert (await command("product", "show", "mine", *of, "--json")).row["name"] == "Meters"
    assert "gatehouse account create" in (await command("product", "create", "other", *of, code=2)).err
    refused = await command("product", "set", "mine", "--secret", "s" * 32, *of, code=1)
    assert refused.err == "gatehouse: secret is nothing that a product has in protocol ublox\n"
    made = await command("group", "create", "QHlN732VgUWCdfNeXHkQR1", "--product", "mine", "--name", "q", *of, "--json")
    assert made.row["key"] == "QHlN732VgUWCdfNeXHkQR1"
    assert [row["name"] for row in (await command("group", "list", *of, "--json")).rows] == ["q", "p"]
    again = await command("export", "-", *of)
    assert {row["deviceProfileUID"]: row["whitelistCheck"] for row in again.rows if row["type"] == "profile"} == {
        "QHlN732VgUWCdfNeXHkQR1": True, PROFILE: False,
    }  # fmt: skip
    await command("group", "delete", PROFILE, "--yes", *of)
    kept = await command("product", "delete", "mine", "--yes", *of, code=1)
    assert "--cascade" in kept.err
    deleted = await command("product", "delete", "mine", "--cascade", "--yes", *of)
    assert deleted.out == "deleted product mine and 2 devices\n"
    assert (await command("account", "list")).out == ""


async def test_devices_that_are_modules(command: Command, tmp_path: Path) -> None:
    of = ("--protocol", PROTOCOL)
    await command("account", "create", "mine")
    await imported(command, tmp_path, *fleet("mine"))
    listed = (await command("device", "list", *of, "--json")).rows
    assert [(row["product"], row["key"], row["state"]) for row in listed] == [
        ("mine", UID, "allocated"), ("mine", "0002000089280088", "allocated"),
    ]  # fmt: skip
    shown = (await command("device", "show", "mine", "2000089280087", *of, "--json", "--reveal")).row
    assert (shown["key"], shown["secret"], shown["disabled"], shown["name"]) == (UID, ROOT_SECRET, True, "Roof")
    assert (await command("device", "enable", "mine", UID, *of)).out == f"mine/{UID} is enabled\n"
    assert (await command("device", "set", "mine", UID, "--name", "Cellar", *of)).out == f"updated mine/{UID}\n"
    made = (await command("device", "create", "mine", "89280089", "--secret", ROOT_SECRET, *of, "--json")).row
    assert (made["key"], made["state"]) == ("0000000089280089", "allocated")
    for args, why in (
        (["create", "mine", "89280090"], "rootSecret is missing"),
        (["create", "mine", "--secret", ROOT_SECRET], "rotPublicUID is missing"),
        (["create", "mine", "xyz", "--secret", ROOT_SECRET], "rotPublicUID must be up to 16 hex digits"),
        (["reset", "mine", UID], "the device is a module with a root secret of its own: cannot give it another one"),
        (["show", "mine", "89280099"], "there is no device 0000000089280099 in product mine"),
    ):
        assert (await command("device", *args, *of, code=1)).err == f"gatehouse: {why}\n"
    await command("device", "delete", "mine", "2000089280088", "--yes", *of)
    kept = await command("account", "delete", "mine", "--yes", code=1)
    assert kept.err == "gatehouse: account mine has devices or device profiles: --cascade deletes them too\n"
    gone = await command("account", "delete", "mine", "--cascade", "--yes", "--json")
    assert gone.row == {"outcome": "deleted", "type": "account", "name": "mine", "devices": 2}


async def test_what_is_exported_brings_it_about_again(command: Command, database: Database, tmp_path: Path) -> None:
    secret = (await command("account", "create", "mine", "--strict-e2e", "--no-certificates", "--json")).row["secret"]
    results = await imported(command, tmp_path, *fleet("mine"))
    assert [(row["type"], row["name"]) for row in results[:3]] == [
        ("profile", PROFILE), ("device", f"mine/{UID}"), ("device", "mine/0002000089280088"),
    ]  # fmt: skip
    file = tmp_path / "out.ndjson"
    await command("export", str(file), "--protocol", PROTOCOL)
    text = file.read_text()
    rows = [json.loads(line) for line in text.splitlines()]
    assert rows[0].pop("apiSecretSha256") == accounts.hash_secret(secret).hex()
    assert rows[0] == {
        "protocol": PROTOCOL, "type": "account", "apiKey": "mine", "strictE2E": True, "certificateManagement": False,
    }  # fmt: skip
    assert rows[1:] == [{"protocol": PROTOCOL} | row for row in fleet("mine")]
    assert (await command("import", str(file), "--json")).rows[-1]["summary"]["unchanged"] == 4
    await command("account", "delete", "mine", "--cascade", "--yes")
    assert (await command("export", "-", "--protocol", PROTOCOL)).out == ""
    assert (await command("import", str(file), "--json")).rows[-1]["summary"]["created"] == 4
    assert (await command("export", "-", "--protocol", PROTOCOL)).out == text
    assert await proves(database, "mine", secret), "applications go on with the secret that they have"


async def test_failed_rows_are_told(command: Command, tmp_path: Path) -> None:
    await command("account", "create", "mine")
    (device, *_) = [row for row in fleet("mine") if row["type"] == "device"]
    lines = await imported(
        command, tmp_path, {"type": "account", "apiKey": "new"}, {"type": "device", "apiKey": "nobody", **{
            name: value for name, value in device.items() if name not in {"type", "apiKey"}
        }}, device | {"rootSecret": None}, device, code=1,
    )  # fmt: skip
    assert [(row["outcome"], row.get("error")) for row in lines[:-1]] == [
        ("failed", "apiSecret is missing"), ("failed", "there is no account nobody"),
        ("failed", "rootSecret is missing"), ("created", None),
    ]  # fmt: skip
