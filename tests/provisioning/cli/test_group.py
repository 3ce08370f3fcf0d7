import pytest

from tests.provisioning.cli.conftest import Command

pytestmark = pytest.mark.server


async def test_create_show_set_list_delete(command: Command) -> None:
    await command("product", "create", "pk1")
    made = (await command("group", "create", "Linie 7", "--product", "pk1", "--auto-activation", "--json")).row
    assert len(made["password"]) == 32
    assert (made["auto_register"], made["auto_activation"], made["freshness"]) == (True, True, 900)
    shown = (await command("group", "show", "Linie 7", "--json")).row
    assert "password" not in shown
    assert shown == {name: value for name, value in made.items() if name != "password"}
    assert (
        await command("group", "set", "Linie 7", "--no-auto-register", "--freshness", "0")
    ).out == "updated Linie 7\n"
    assert (await command("group", "set", "Linie 7", "--freshness", "0")).out == "unchanged Linie 7\n"
    assert (await command("group", "list")).table == [["Linie 7", "pk1", "-", "no", "yes", "0"]]
    revealed = (await command("group", "show", "Linie 7", "--reveal", "--json")).row
    assert revealed["password"] == made["password"]
    assert (await command("group", "delete", "Linie 7", "--json")).row["outcome"] == "deleted"
    assert (await command("group", "list")).out == ""


async def test_a_key_is_made_up(command: Command) -> None:
    assert len((await command("group", "create", "--json")).row["key"]) == 8


async def test_a_group_with_devices_goes_with_cascade_only(command: Command) -> None:
    await command("group", "create", "g1")
    await command("device", "create", "--group", "g1", "--serial", "SN1")
    refused = await command("group", "delete", "g1", code=1)
    assert refused.err == "gatehouse: group g1 has devices: --cascade deletes them too\n"
    assert (await command("group", "delete", "g1", "--cascade")).out == "deleted group g1 and 1 device\n"


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["show", "nope"], "there is no group nope"),
        (["set", "nope", "--freshness", "1"], "there is no group nope"),
        (["create", "g2", "--product", "nope"], "there is no product nope"),
        (["create", "g2", "--freshness", "-1"], "signFreshness must be whole seconds, 0: not checked"),
        (["create", "g1"], "there is a group g1 already; `gatehouse group set` changes it"),
    ],
)
async def test_refusals_are_one_line(command: Command, args: list[str], words: str) -> None:
    await command("group", "create", "g1")
    assert (await command("group", *args, code=1)).err == f"gatehouse: {words}\n"
