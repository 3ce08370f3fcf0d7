import re

import pytest

from tests.provisioning.cli.conftest import Command

pytestmark = pytest.mark.server


async def test_a_created_product_is_printed_with_what_was_made_up(command: Command) -> None:
    made = (await command("product", "create", "--json")).row
    assert len(made["key"]) == 8
    assert len(made["secret"]) == 32
    assert (await command("product", "show", made["key"], "--reveal", "--json")).row["secret"] == made["secret"]


async def test_what_is_given_is_kept(command: Command) -> None:
    await command(
        "product", "create", "pk1", "--secret", "s3", "--name", "Pump", "--dynamic-activation", "--auto-create"
    )
    shown = (await command("product", "show", "pk1", "--reveal", "--json")).row
    assert shown | {"created_at": ""} == {
        "protocol": "enos", "key": "pk1", "secret": "s3", "name": "Pump", "dynamic_activation": True,
        "auto_create": True, "certificate_login": False, "register_limit": None, "client_authority": "",
        "demo": False, "created_at": "",
    }  # fmt: skip


async def test_secrets_stay_hidden_until_asked_for(command: Command) -> None:
    await command("product", "create", "pk1", "--secret", "hush-hush")
    for args in (["show", "pk1"], ["show", "pk1", "--json"], ["list"], ["list", "--json"], ["set", "pk1", "--json"]):
        assert "hush-hush" not in (await command("product", *args)).out, args
    assert "hush-hush" in (await command("product", "show", "pk1", "--reveal")).out


async def test_creating_what_exists_fails_and_changes_nothing(command: Command) -> None:
    await command("product", "create", "pk1", "--secret", "first")
    refused = await command("product", "create", "pk1", "--secret", "second", code=1)
    assert refused.err == "gatehouse: there is a product pk1 already; `gatehouse product set` changes it\n"
    assert (await command("product", "show", "pk1", "--reveal", "--json")).row["secret"] == "first"


async def test_set_changes_what_is_given_only(command: Command) -> None:
    await command("product", "create", "pk1", "--secret", "s", "--name", "Pump", "--dynamic-activation")
    assert (await command("product", "set", "pk1", "--name", "")).out == "updated pk1\n"
    assert (await command("product", "set", "pk1", "--dynamic-activation")).out == "unchanged pk1\n"
    shown = (await command("product", "show", "pk1", "--reveal", "--json")).row
    assert (shown["name"], shown["secret"], shown["dynamic_activation"]) == ("", "s", True)


async def test_certificate_login_is_turned_on_and_off(command: Command) -> None:
    made = (await command("product", "create", "pk1", "--certificate-login", "--json")).row
    assert made["certificate_login"] is True
    assert (await command("product", "list", "--json")).row["certificate_login"] is True
    assert (await command("product", "set", "pk1", "--name", "Pump")).out == "updated pk1\n"
    assert (await command("product", "show", "pk1", "--json")).row["certificate_login"] is True
    assert (await command("product", "set", "pk1", "--no-certificate-login")).out == "updated pk1\n"
    assert (await command("product", "show", "pk1", "--json")).row["certificate_login"] is False


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["show", "nope"], "there is no product nope"),
        (["set", "nope", "--name", "x"], "there is no product nope"),
        (["delete", "nope"], "there is no product nope"),
        (["create", "a/b"], "productKey must be 1 to 64 of A-Z a-z 0-9 _ . -"),
        (["create", ""], "key must not be empty"),
        (["create", "pk1", "--secret", ""], "secret must not be empty"),
        (["create", "pk1", "--secret", "two words"], "productSecret must be 1 to 128 visible ASCII characters"),
        (["create", "pk1", "--protocol", "nope"], "there is no protocol nope; there is enos, tencent, ioto, ublox"),
    ],
)
async def test_refusals_are_one_line(command: Command, args: list[str], words: str) -> None:
    assert (await command("product", *args, code=1)).err == f"gatehouse: {words}\n"
    assert (await command("product", "list")).out == ""


async def test_list_for_pipes_and_programs(command: Command) -> None:
    for key in ("b", "a"):
        await command("product", "create", key, "--name", f"Name {key}")
    assert (await command("product", "list")).table == [
        ["a", "Name a", "no", "no", "no", "0", "no"], ["b", "Name b", "no", "no", "no", "0", "no"],
    ]  # fmt: skip
    assert [row["key"] for row in (await command("product", "list", "--json")).rows] == ["a", "b"]
    assert [row["key"] for row in (await command("product", "list", "--json", "--limit", "1")).rows] == ["a"]


async def test_a_product_that_is_in_use_goes_with_cascade_only(command: Command) -> None:
    await command("product", "create", "pk1")
    await command("group", "create", "g1", "--product", "pk1")
    await command("device", "create", "pk1", "dk1")
    refused = await command("product", "delete", "pk1", code=1)
    assert refused.err == "gatehouse: product pk1 has groups or devices: --cascade deletes them too\n"
    assert (await command("product", "delete", "pk1", "--cascade")).out == "deleted product pk1 and 1 device\n"
    assert (await command("device", "list")).out == (await command("group", "list")).out == ""


async def test_a_product_whose_devices_register(command: Command) -> None:
    """Keys and secrets have the forms of the vendor, not of the house."""
    made = (await command("product", "create", "--protocol", "tencent", "--register-limit", "1000", "--json")).row
    assert re.fullmatch("[A-Z0-9]{10}", made["key"])
    assert re.fullmatch("[A-Za-z0-9]{24}", made["secret"])
    assert (made["register_limit"], made["client_authority"]) == (1000, "")
    which = (made["key"], "--protocol", "tencent")
    device = (await command("device", "create", *which, "--json")).row
    assert re.fullmatch("[A-Za-z0-9+/]{22}==", device["secret"])
    assert device["asset"] == ""
    assert (await command("product", "set", *which, "--dynamic-activation", "--auto-create")).out.startswith("updated")
    row = (await command("export", "-", "--protocol", "tencent")).rows[0]
    assert (row["registerType"], row["registerLimit"], row["encryptionType"]) == (2, 1000, 2)
    assert (await command("product", "set", *which, "--register-limit", "0", "--json")).row["register_limit"] is None


async def test_a_client_authority_must_be_there(command: Command) -> None:
    args = ("product", "create", "P", "--protocol", "tencent", "--certificate-login", "--client-authority", "factory")
    assert (await command(*args, code=1)).err == "gatehouse: there is no authority factory\n"
    await command("ca", "create", "factory")
    await command(*args)
    shown = await command("product", "set", "P", "--protocol", "tencent", "--client-authority", "", "--json")
    assert shown.row["client_authority"] == ""


async def test_what_a_protocol_does_not_have_is_not_kept(command: Command) -> None:
    refused = await command("product", "create", "pk1", "--register-limit", "5", code=1)
    assert refused.err == "gatehouse: register limit is nothing that a product has in protocol enos\n"
    await command("product", "create", "P", "--protocol", "tencent")
    refused = await command("device", "create", "P", "d", "--asset", "a", "--protocol", "tencent", code=1)
    assert refused.err == "gatehouse: asset is nothing that a device has in protocol tencent\n"
    assert "group" in (await command("group", "create", "g", "--protocol", "tencent", code=1)).err
