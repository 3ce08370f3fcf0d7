import pytest

from tests.provisioning.cli.conftest import Command

pytestmark = pytest.mark.server


@pytest.fixture
async def filled(command: Command) -> Command:
    """A product and a group that allocates in it."""
    await command("product", "create", "pk1")
    await command("group", "create", "g1", "--product", "pk1")
    return command


async def test_create_in_a_product_allocates(filled: Command) -> None:
    made = (await filled("device", "create", "pk1", "--json")).row
    assert (made["state"], len(made["key"]), len(made["secret"])) == ("allocated", 10, 32)
    shown = (await filled("device", "show", "pk1", made["key"], "--json")).row
    assert "secret" not in shown
    assert "created_at" not in made
    assert shown["created_at"]
    assert shown["asset"] == made["asset"]


async def test_create_by_serial_number_registers(filled: Command) -> None:
    made = (await filled("device", "create", "--group", "g1", "--serial", "SN1", "--json")).row
    assert (made["state"], made["product"], made["key"], made["secret"]) == ("registered", "", "", "")
    shown = (await filled("device", "show", "--group", "g1", "--serial", "SN1", "--json")).row
    assert shown["serial"] == "SN1"


async def test_creating_what_exists_fails_and_changes_nothing(filled: Command) -> None:
    await filled("device", "create", "pk1", "dk1", "--secret", "first", "--group", "g1", "--serial", "SN1")
    for names in (["pk1", "dk1"], ["--group", "g1", "--serial", "SN1"], ["pk1", "dk1", "--secret", "second"]):
        refused = await filled("device", "create", *names, "--name", "other", code=1)
        assert refused.err.startswith("gatehouse: there is a device pk1/dk1 (g1:SN1) already"), names
    await filled("device", "create", "pk1", "plain")
    await filled("device", "create", "--group", "g1", "--serial", "SN2")
    for names, name in ((["pk1", "plain"], "pk1/plain"), (["--group", "g1", "--serial", "SN2"], "g1:SN2")):
        refused = await filled("device", "create", *names, code=1)
        assert refused.err.startswith(f"gatehouse: there is a device {name} already; "), names
    taken = await filled("device", "create", "pk1", "dk2", "--group", "g1", "--serial", "SN1", code=1)
    assert taken.err == "gatehouse: serial is taken by another one\n"
    shown = (await filled("device", "show", "pk1", "dk1", "--reveal", "--json")).row
    assert (shown["secret"], shown["name"]) == ("first", "")


async def test_set_by_either_address(filled: Command) -> None:
    await filled("device", "create", "pk1", "dk1", "--secret", "first")
    await filled("device", "set", "pk1", "dk1", "--group", "g1", "--serial", "SN1", "--timezone", "Europe/Berlin")
    by_serial = ("--group", "g1", "--serial", "SN1")
    assert (await filled("device", "set", *by_serial, "--secret", "second", "--name", "N")).out == "updated g1:SN1\n"
    assert (await filled("device", "set", *by_serial, "--secret", "second")).out == "unchanged g1:SN1\n"
    shown = (await filled("device", "show", "pk1", "dk1", "--reveal", "--json")).row
    assert (shown["secret"], shown["name"], shown["timezone"], shown["serial"]) == (
        "second",
        "N",
        "Europe/Berlin",
        "SN1",
    )


async def test_set_creates_nothing(filled: Command) -> None:
    assert "there is no device dk1 in product pk1" in (await filled("device", "set", "pk1", "dk1", code=1)).err
    await filled("device", "create", "--group", "g1", "--serial", "SN1")
    await filled("device", "set", "pk1", "dk1", "--group", "g1", "--serial", "SN1", code=1)
    refused = await filled("device", "set", "--group", "g1", "--serial", "SN1", "--secret", "x", code=1)
    assert refused.err == "gatehouse: the device is not allocated: it has no key and no secret\n"
    assert [row["state"] for row in (await filled("device", "list", "--json")).rows] == ["registered"]


async def test_list_filters(filled: Command) -> None:
    await filled("device", "create", "pk1", "dk1", "--name", "One")
    await filled("device", "create", "pk1", "dk2", "--group", "g1", "--serial", "SN2")
    await filled("device", "create", "--group", "g1", "--serial", "SN3")
    await filled("device", "disable", "pk1", "dk2")

    async def listed(*args: str) -> list[str]:
        return [row["key"] or row["serial"] for row in (await filled("device", "list", "--json", *args)).rows]

    assert await listed() == ["dk1", "dk2", "SN3"]
    assert await listed("--product", "pk1") == ["dk1", "dk2"]
    assert await listed("--group", "g1") == ["dk2", "SN3"]
    assert await listed("--state", "registered") == ["SN3"]
    assert await listed("--disabled") == ["dk2"]
    assert await listed("--enabled", "--product", "pk1") == ["dk1"]
    assert await listed("--limit", "2") == ["dk1", "dk2"]
    assert (await filled("device", "list", "--limit", "1")).table == [
        ["pk1", "dk1", "-", "-", "allocated", "no", "no", "One"]
    ]


async def test_delete(filled: Command) -> None:
    await filled("device", "create", "pk1", "dk1")
    assert (await filled("device", "delete", "pk1", "dk1")).out == "deleted device pk1/dk1\n"
    assert "there is no device dk1" in (await filled("device", "delete", "pk1", "dk1", code=1)).err


@pytest.mark.parametrize("names", [[], ["pk1"], ["--group", "g1"], ["--serial", "SN1"], ["pk1", "--serial", "SN1"]])
async def test_half_an_address_is_wrong_usage(command: Command, names: list[str]) -> None:
    assert "PRODUCT DEVICE" in (await command("device", "show", *names, code=2)).err


@pytest.mark.parametrize("field", ["--name", "--secret", "--timezone", "--asset", "--serial"])
async def test_fields_are_checked(filled: Command, field: str) -> None:
    refused = await filled("device", "create", "pk1", "dk1", "--group", "g1", field, "\x00", code=1)
    assert refused.err.count("\n") == 1
    assert "must be" in refused.err
    assert (await filled("device", "list")).out == ""
