"""`gatehouse cert`: the inventory."""

import json
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509

from provisioning.core import ca, pki
from provisioning.model.certificate import Certificate
from provisioning.store.database import Database
from tests.certificates import NOW, issue, run
from tests.conftest import until
from tests.provisioning.cli.conftest import Command

pytestmark = pytest.mark.server


@pytest.fixture
async def serials(command: Command, tmp_path: Path) -> dict[str, str]:
    """Of certificates for devices pk1/dk1, pk1/dk2, pk2/dk1 and for a server."""
    await command("ca", "create", "acme")
    for product, device in (("pk1", "dk1"), ("pk1", "dk2"), ("pk2", "dk1")):
        if device == "dk1":
            await command("product", "create", product)
        await command("device", "create", product, device)
    found = {}
    wanted = {"pk1/dk1": ["pk1", "dk1"], "pk1/dk2": ["pk1", "dk2"], "pk2/dk1": ["pk2", "dk1"]}
    for name, whom in (wanted | {"server": ["--server", "gw.example"]}).items():
        key = str(tmp_path / name.replace("/", "-"))
        found[name] = (await command("cert", "issue", *whom, "--key-out", key, "--json")).row["serial"]
    return found


async def put(database: Database, days: float, backwards: float = 0) -> Certificate:
    """A certificate of the default authority that expires in so many days, made in the past."""
    authority = await run(database, ca.default)
    made: Certificate = await issue(database, authority, days=365)
    begin, end = NOW - timedelta(days=max(backwards, 400)), NOW + timedelta(days=days)
    async with database.begin() as tx:
        await tx.db.execute("UPDATE certificate SET not_before = $2, not_after = $3 WHERE id = $1", made.id, begin, end)
    return made


# --- list ---


async def test_lists(command: Command, serials: dict[str, str]) -> None:
    async def listed(*args: str) -> set[str]:
        found = {each["serial"] for each in (await command("cert", "list", "--json", *args)).rows}
        return {name for name, serial in serials.items() if serial in found}

    everything = set(serials)
    assert await listed() == everything
    assert await listed("--product", "pk1") == {"pk1/dk1", "pk1/dk2"}
    assert await listed("--product", "pk1", "--device", "dk2") == {"pk1/dk2"}
    assert await listed("--product", "pk1", "--limit", "1") == {"pk1/dk1"}
    assert await listed("--authority", "acme") == await listed("--authority", "acme-1") == everything
    await command("ca", "rotate", "acme")
    assert await listed("--authority", "acme") == set()
    assert await listed("--expires-within", "400") == {"server"}
    assert await listed("--expires-within", "10") == set()
    await command("cert", "hold", serials["server"])
    await command("cert", "revoke", serials["pk2/dk1"])
    assert await listed("--status", "held") == {"server"}
    assert await listed("--status", "revoked") == {"pk2/dk1"}
    assert await listed("--status", "valid") == {"pk1/dk1", "pk1/dk2"}
    assert await listed("--status", "expired") == set()


async def test_an_expired_one_is_not_valid(command: Command, database: Database) -> None:
    await command("ca", "create", "acme")
    gone, near = await put(database, -1), await put(database, 5)
    rows = (await command("cert", "list", "--json")).rows
    assert [(each["serial"], each["status"]) for each in rows] == [(gone.serial, "expired"), (near.serial, "valid")]
    assert (await command("cert", "list", "--json", "--status", "expired")).row["serial"] == gone.serial
    assert (await command("cert", "list", "--json", "--status", "valid")).row["serial"] == near.serial
    assert (await command("cert", "list", "--json", "--expires-within", "5")).row["serial"] == near.serial


async def test_a_product_s_certificates_are_found_behind_pages_of_others(
    command: Command, serials: dict[str, str], database: Database
) -> None:
    async with database.begin() as tx:
        await tx.db.execute(
            "INSERT INTO certificate (authority_id, serial, fingerprint, der, profile, not_before, not_after) "
            "SELECT authority_id, to_hex(1048576 + n), sha256(n::text::bytea), der, profile, not_before, not_after "
            "FROM certificate, generate_series(1, 2500) n WHERE serial = $1",
            serials["server"],
        )
        await tx.db.execute("UPDATE certificate SET device_id = (SELECT device_id FROM certificate WHERE serial = $1) "
                            "WHERE serial = to_hex(1048576 + 2400)", serials["pk1/dk1"])  # fmt: skip
    found = (await command("cert", "list", "--json", "--product", "pk1")).rows
    assert [each["device"] for each in found] == ["dk1", "dk2", "dk1"]


async def test_a_table_for_pipes(command: Command, serials: dict[str, str]) -> None:
    lines = (await command("cert", "list")).table
    assert lines[0][:5] == [serials["pk1/dk1"], "acme-1", "pk1", "dk1", "valid"]
    assert lines[-1][:5] == [serials["server"], "acme-1", "-", "-", "valid"]
    assert all(len(line[5]) == len("2030-01-01") for line in lines)


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--product", "nope"], "there is no product nope"),
        (["--product", "pk1", "--device", "nope"], "there is no device nope in product pk1"),
        (["--authority", "nope"], "there is no authority nope"),
        (["--protocol", "nope"], "there is no protocol nope; there is enos, tencent, ioto, ublox"),
    ],
)
async def test_a_list_of_what_is_not_there(command: Command, args: list[str], words: str) -> None:
    await command("product", "create", "pk1")
    assert (await command("cert", "list", *args, code=1)).err == f"gatehouse: {words}\n"


@pytest.mark.parametrize(
    "args",
    [["--device", "dk1"], ["--status", "odd"], ["--status", "expired", "--expires-within", "5"],
     ["--expires-within", "0"]],
)  # fmt: skip
async def test_wrong_usage(command: Command, args: list[str]) -> None:
    assert "Usage:" in (await command("cert", "list", *args, code=2)).err


# --- show ---


def pasted(serial: str) -> list[str]:
    """A serial number as browsers, OpenSSL and people write it."""
    even = serial if len(serial) % 2 == 0 else f"0{serial}"
    colons = ":".join(even[at : at + 2] for at in range(0, len(even), 2))
    return [serial.upper(), colons, colons.upper(), f"0x{serial}", f"00{serial}", f"serial={even.upper()}"]


async def test_a_serial_number_in_any_form(command: Command, serials: dict[str, str]) -> None:
    for text in pasted(serials["pk1/dk2"]):
        assert (await command("cert", "show", text, "--json")).row["device"] == "dk2", text


async def test_all_that_is_known_of_one(command: Command, serials: dict[str, str]) -> None:
    shown = (await command("cert", "show", serials["server"], "--json")).row
    parsed = x509.load_pem_x509_certificate(shown["certificate"].encode())
    assert pki.write_serial(parsed.serial_number) == shown["serial"] == serials["server"]
    assert (shown["subject"], shown["names"], shown["key"]) == ("CN=gw.example", ["gw.example"], "p256")
    assert (shown["profile"], shown["authority"], shown["superseded_by"]) == ("server", "acme-1", None)
    assert (await command("cert", "show", serials["server"], "--pem")).out == shown["certificate"]
    text = (await command("cert", "show", serials["server"])).table
    assert ["subject", "CN=gw.example"] in text


@pytest.mark.parametrize(
    ("serial", "words"),
    [
        ("abcdef", "there is no certificate abcdef"),
        ("0", "serial must be 1 to 40 hexadecimal digits, and not zero"),
        ("nonsense", "serial must be 1 to 40 hexadecimal digits, and not zero"),
        ("1" * 41, "serial must be 1 to 40 hexadecimal digits, and not zero"),
        ("", "serial must be 1 to 40 hexadecimal digits, and not zero"),
    ],
)
@pytest.mark.parametrize("verb", ["show", "renew", "revoke", "hold", "release"])
async def test_an_unknown_serial_number(command: Command, verb: str, serial: str, words: str) -> None:
    assert (await command("cert", verb, serial, code=1)).err == f"gatehouse: {words}\n"


async def test_a_serial_number_of_two_authorities(
    command: Command, serials: dict[str, str], database: Database
) -> None:
    await command("ca", "create", "other")
    async with database.begin() as tx:
        await tx.db.execute(
            "INSERT INTO certificate (authority_id, serial, fingerprint, der, profile, cn, not_before, not_after) "
            "SELECT a.id, c.serial, sha256('x'), c.der, c.profile, c.cn, c.not_before, c.not_after "
            "FROM certificate c, authority a WHERE c.serial = $1 AND a.name = 'other'",
            serials["server"],
        )
    serial = serials["server"]
    refused = await command("cert", "hold", serial, code=1)
    assert (
        refused.err == f"gatehouse: several authorities have issued certificate {serial}: state which with --issuer\n"
    )
    assert (await command("cert", "hold", serial, "--issuer", "other-1", "--json")).row["authority"] == "other-1"
    assert (await command("cert", "show", serial, "--issuer", "acme-1", "--json")).row["status"] == "valid"


# --- revoke, hold, release ---


async def test_the_life_of_a_certificate(command: Command, serials: dict[str, str]) -> None:
    serial = serials["pk1/dk1"]
    assert (await command("cert", "hold", serial)).out == f"{serial} is held\n"
    again = await command("cert", "hold", serial, code=1)
    assert again.err == f"gatehouse: certificate {serial} is held already\n"
    assert (await command("cert", "release", serial)).out == f"{serial} is valid again\n"
    refused = await command("cert", "release", serial, code=1)
    assert refused.err == f"gatehouse: certificate {serial} is valid: cannot release\n"
    revoked = (await command("cert", "revoke", serial, "--reason", "superseded", "--json")).row
    assert (revoked["status"], revoked["reason"]) == ("revoked", "superseded")
    again = await command("cert", "revoke", serial, code=1)
    assert again.err == f"gatehouse: certificate {serial} is revoked already\n"
    refused = await command("cert", "renew", serial, code=1)
    assert refused.err == f"gatehouse: certificate {serial} is revoked: cannot renew\n"


async def test_a_reason_that_there_is_not(command: Command, serials: dict[str, str]) -> None:
    assert "keyCompromise" in (await command("cert", "revoke", serials["server"], "--reason", "odd", code=2)).err


# --- export ---


async def test_the_inventory_as_ndjson(command: Command, serials: dict[str, str], tmp_path: Path) -> None:
    file = tmp_path / "inventory"
    assert (await command("cert", "export", str(file))).err == f"4 certificates in {file}\n"
    rows = [json.loads(line) for line in file.read_text("utf-8").splitlines()]
    assert [each["serial"] for each in rows] == list(serials.values())
    for each in rows:
        parsed = x509.load_pem_x509_certificate(each["certificate"].encode())
        assert pki.write_serial(parsed.serial_number) == each["serial"]
    assert (await command("cert", "export", "-")).rows == rows


async def test_the_inventory_as_pem(command: Command, serials: dict[str, str], tmp_path: Path) -> None:
    file = tmp_path / "inventory"
    await command("cert", "export", str(file), "--pem")
    found = x509.load_pem_x509_certificates(file.read_bytes())
    assert [pki.write_serial(each.serial_number) for each in found] == list(serials.values())
    assert "PRIVATE" not in file.read_text()


async def test_an_export_to_where_one_cannot_write(command: Command) -> None:
    refused = await command("cert", "export", "/nowhere/file", code=1)
    assert refused.err == "gatehouse: cannot write /nowhere/file: No such file or directory\n"


# --- on a service ---


async def test_every_process_hears_of_a_revocation(
    command: Command, serials: dict[str, str], database_url: str, database: Database
) -> None:
    from tests.certificates import notifications

    async with notifications(database_url) as heard:
        await command("cert", "revoke", serials["pk1/dk1"])
        await until(lambda: heard, "the notification")
    assert (heard[0]["change"], heard[0]["serial"]) == ("certificate", serials["pk1/dk1"])
