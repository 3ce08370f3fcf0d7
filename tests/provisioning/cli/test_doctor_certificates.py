from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat

from provisioning.cli import doctor_certificates
from provisioning.cli.doctor import Finding, Level
from provisioning.cli.doctor_database import Opened
from provisioning.core import ca, certify, pki
from provisioning.store.database import Database
from tests.certificates import KEY, NOW, add_device, days, issue, read_company, run
from tests.conftest import settings_for
from tests.openssl import Made, made

pytestmark = pytest.mark.server


# --- authorities ---


async def examined(database: Database) -> list[Finding]:
    settings = settings_for(database.url)
    return [each async for each in doctor_certificates.of_registry(settings, Opened(database))]


async def about(database: Database, check: str) -> list[tuple[str, str]]:
    return [(str(each.status), each.finding) for each in await examined(database) if each.check == check]


async def create(database: Database, name: str = "acme", **more: Any) -> Any:
    return await run(database, ca.create, name, more.pop("key", KEY), **({"now": NOW} | more))


async def test_none_yet(database: Database) -> None:
    assert (await about(database, "default authority"))[0][0] == "warning"


async def test_sound_ones(database: Database) -> None:
    root = made("Root")
    await create(database)
    await run(database, ca.import_, "company", read_company(made("Issuing", root, path_length=0), root))
    await run(database, ca.trust, "elsewhere", made("Elsewhere").certificate)
    found = await examined(database)
    assert {each.status for each in found} == {Level.OK}, found
    assert {each.check for each in found} == {
        "default authority", "authority acme-1", "authority company-1", "authority elsewhere-1", "device certificates",
    }  # fmt: skip


async def test_a_rehearsed_crl_leaves_no_trace(database: Database) -> None:
    await create(database)
    await examined(database)
    async with database.read() as tx:
        assert await tx.db.fetchval("SELECT crl_number FROM authority") == 0


async def test_no_default(database: Database) -> None:
    await create(database)
    async with database.begin() as tx:
        await tx.db.execute("UPDATE authority SET is_default = false")
    assert (await about(database, "default authority"))[0][0] == "problem"


@pytest.mark.parametrize(
    ("left", "status", "words"),
    [(366, "ok", "until"), (364, "warning", "expires on"), (-1, "problem", "expired on")],
)
async def test_the_life_that_is_left(database: Database, left: int, status: str, words: str) -> None:
    authority = await create(database)
    async with database.begin() as tx:
        await tx.db.execute(
            "UPDATE authority SET not_before = $2, not_after = $3 WHERE id = $1", authority.id, NOW - days(900),
            NOW + days(left),
        )  # fmt: skip
    (found,) = await about(database, "authority acme-1")
    assert (found[0], words in found[1]) == (status, True)


async def test_one_that_is_not_valid_yet(database: Database) -> None:
    await create(database, now=NOW + days(1))
    assert [each[0] for each in await about(database, "authority acme-1")] == ["problem", "problem"]  # life and path


async def test_retired_and_distrusted_ones_may_expire(database: Database) -> None:
    first = await create(database, years=1)
    await run(database, ca.rotate, first, pki.new_key(), now=NOW)
    old = await create(database, "old", key=pki.new_key(), now=NOW - days(400), years=1)
    await run(database, ca.distrust, old, now=NOW)
    assert [each[0] for each in await about(database, "authority acme-1")] == ["info"]
    assert await about(database, "authority old-1") == [
        ("info", f"distrusted; p256, until {old.not_after:%Y-%m-%d}")
    ]  # fmt: skip


async def test_a_key_that_does_not_open(database: Database) -> None:
    await create(database)
    async with database.begin() as tx:
        await tx.db.execute("UPDATE authority SET key = key || '\\x00'")
    ((status, words),) = await about(database, "authority acme-1")
    assert (status, words.startswith("its key does not open: ")) == ("problem", True)


async def test_the_key_of_another(database: Database) -> None:
    await create(database)
    async with database.begin() as tx:
        sealed = tx.sealer.seal(pki.write_key(pki.new_key()), "authority|acme|1")
        await tx.db.execute("UPDATE authority SET key = $1", sealed)
    assert await about(database, "authority acme-1") == [("problem", "its key is not that of its certificate")]


async def test_a_chain_that_is_damaged(database: Database) -> None:
    root = made("Root")
    await run(database, ca.import_, "acme", read_company(made("Issuing", root, path_length=0), root))
    async with database.begin() as tx:
        stranger = made("Root").certificate.public_bytes(Encoding.DER)
        await tx.db.execute("UPDATE authority SET chain = ARRAY[$1::bytea]", stranger)
    ((status, words),) = await about(database, "authority acme-1")
    assert (status, words) == ("problem", "CN=Root did not issue CN=Issuing: its chain is damaged")


async def test_a_root_that_has_expired(database: Database) -> None:
    root = made("Root")
    await run(database, ca.import_, "acme", read_company(made("Issuing", root, path_length=0), root))
    past = made("Root", key=root.key, not_after=datetime(2025, 1, 1, tzinfo=UTC))
    async with database.begin() as tx:
        await tx.db.execute(
            "UPDATE authority SET chain = ARRAY[$1::bytea]", past.certificate.public_bytes(Encoding.DER)
        )
    ((status, words),) = await about(database, "authority acme-1")
    assert (status, words) == ("problem", "its chain CN=Root expired on 2025-01-01 00:00:00 UTC")


# --- devices ---


async def test_devices_whose_certificates_end(database: Database) -> None:
    authority = await create(database)
    gone, near = await add_device(database, "gone"), await add_device(database, "near")
    made_gone = await issue(database, authority, device=gone)
    made_near = await issue(database, authority, device=near, days=20)
    await run(database, certify.renew, authority, made_near, now=NOW, days=25)
    async with database.begin() as tx:
        await tx.db.execute(
            "UPDATE certificate SET not_before = $2, not_after = $3 WHERE id = $1", made_gone.id, NOW - days(9),
            NOW - days(1),
        )  # fmt: skip
    found = await about(database, "device certificates")
    assert [status for status, _ in found] == ["warning"] * 3
    assert found[0][1] == "those of 1 devices have expired"
    assert found[1][1] == "those of 1 devices expire within 30 days"
    assert "1 of the old ones expire within 30 days" in found[2][1]


async def test_successors_that_nobody_has_seen_yet(database: Database) -> None:
    authority = await create(database)
    certificate = await issue(database, authority, device=await add_device(database))
    await run(database, certify.renew, authority, certificate, now=NOW, days=365)
    assert [status for status, _ in await about(database, "device certificates")] == ["ok", "info"]


# --- server ---

ROOT = made("Root")


def server(*names: str, by: Made = ROOT, begins: float = -1, ends: float = 100) -> Made:
    """Valid from `begins` to `ends`, in days from now."""
    extra = [(x509.SubjectAlternativeName(pki.read_names(names or ("localhost",))), False)]
    return made("server", by, ca=False, extra=extra, not_before=NOW + days(begins), not_after=NOW + days(ends))


async def judged(path: Path, *chain: Made, key: Any = None, mode: int = 0o600, **more: Any) -> list[tuple[Level, str]]:
    """What is said of the files, first their names cut off."""
    pem = pki.write_key(key or chain[0].key).encode() if not isinstance(key, bytes) else key
    (path / "c.pem").write_bytes(b"".join(each.pem for each in chain))
    (path / "k.pem").write_bytes(pem)
    (path / "k.pem").chmod(mode)
    more["tls"] = {"certificate": path / "c.pem", "key": path / "k.pem"} | more.get("tls", {})
    settings = settings_for("", **more)
    found = [each async for each in doctor_certificates.of_server(settings)]
    return [(each.status, each.finding.replace(f"{path}/", "")) for each in found]


async def test_files_that_are_sound(tmp_path: Path) -> None:
    between = made("Between", ROOT)
    assert await judged(tmp_path, server(by=between), between) == [(Level.OK, "c.pem")]
    assert await judged(tmp_path, server()) == [(Level.OK, "c.pem")]


async def test_one_file_for_both(tmp_path: Path) -> None:
    leaf = server()
    file = tmp_path / "both.pem"
    file.write_bytes(pki.write_key(leaf.key).encode() + leaf.pem)
    file.chmod(0o600)
    settings = settings_for("", tls={"certificate": file})
    assert [each.status async for each in doctor_certificates.of_server(settings)] == [Level.OK]


async def test_files_that_cannot_be_used(tmp_path: Path) -> None:
    leaf = server()
    locked = leaf.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"x"))
    unreadable = "the key in k.pem cannot be read: not PEM, encrypted, or damaged"
    assert await judged(tmp_path, leaf, key=pki.new_key()) == [(Level.PROBLEM, "k.pem is not the key of c.pem")]
    assert await judged(tmp_path, leaf, key=b"nonsense") == [(Level.PROBLEM, unreadable)]
    assert await judged(tmp_path, leaf, key=locked) == [(Level.PROBLEM, unreadable)]
    assert await judged(tmp_path, leaf, tls={"certificate": tmp_path / "nope"}) == [
        (Level.PROBLEM, "cannot read nope: No such file or directory")
    ]
    assert (await judged(tmp_path, leaf, tls={"certificate": tmp_path / "k.pem"}))[0][0] is Level.PROBLEM
    assert await judged(tmp_path, leaf, mode=0o644) == [(Level.PROBLEM, "others may read the key in k.pem")]


async def test_a_chain_out_of_order(tmp_path: Path) -> None:
    between = made("Between", ROOT)
    assert await judged(tmp_path, server(by=between), ROOT, between) == [
        (Level.PROBLEM, "the chain is out of order: number 2 (CN=Root) did not issue number 1 (CN=server)")
    ]


@pytest.mark.parametrize(
    ("begin", "end", "status", "words"),
    [
        (-9, 31, Level.OK, "c.pem"), (-9, 29, Level.WARNING, "expires on"), (-9, -1, Level.PROBLEM, "expired on"),
        (1, 99, Level.PROBLEM, "is not valid before"),
    ],
)  # fmt: skip
async def test_the_life_of_a_server_certificate(
    tmp_path: Path, begin: int, end: int, status: Level, words: str
) -> None:
    ((found, said),) = await judged(tmp_path, server(begins=begin, ends=end))
    assert (found, said.startswith(words)) == (status, True), said


@pytest.mark.parametrize(
    ("names", "more", "missing"),
    [
        (["gw.example"], {"endpoints": {"murl": "ssl://gw.example:1"}}, ""),
        (["*.example"], {"endpoints": {"murl": "ssl://GW.example:1", "hurl": "https://api.example"}}, ""),
        (["*.example"], {"endpoints": {"murl": "ssl://a.gw.example:1"}}, "a.gw.example"),
        (["gw.example"], {"endpoints": {"hurl": "https://10.0.0.1"}}, "10.0.0.1"),
        (["10.0.0.1", "::1"], {"endpoints": {"hurl": "https://10.0.0.1", "murl": "ssl://[::1]:1"}}, ""),
        (["gw.example"], {"tls": {"names": ["gw.example", "other"]}}, "other"),
        (["gw.example"], {}, ""),
    ],
)
async def test_names_that_devices_come_by(tmp_path: Path, names: list[str], more: dict[str, Any], missing: str) -> None:
    ((status, said),) = await judged(tmp_path, server(*names), **more)
    if missing:
        assert (status, said) == (Level.WARNING, f"is not for {missing}: devices that check names refuse it")
    else:
        assert status is Level.OK


async def of_hosts(path: Path, *hosts: dict[str, str], **more: Any) -> list[tuple[str, Level, str]]:
    """What is said of a sound main certificate for localhost, and of the files of `hosts`."""
    main = path / "main.pem"
    leaf = server()
    main.write_bytes(pki.write_key(leaf.key).encode() + leaf.pem)
    main.chmod(0o600)
    settings = settings_for("", tls={"certificate": main, "hosts": hosts}, **more)
    found = [each async for each in doctor_certificates.of_server(settings)]
    return [(each.check.replace(f"{path}/", ""), each.status, each.finding.replace(f"{path}/", "")) for each in found]


async def test_certificates_of_hosts_are_judged_like_the_main_one(tmp_path: Path) -> None:
    def write(name: str, leaf: Made, key: Any = None, mode: int = 0o600) -> dict[str, str]:
        file, key_file = tmp_path / f"{name}.pem", tmp_path / f"{name}.key"
        file.write_bytes(leaf.pem)
        key_file.write_text(pki.write_key(key or leaf.key))
        key_file.chmod(mode)
        return {"certificate": str(file), "key": str(key_file)}

    found = await of_hosts(
        tmp_path, write("good", server("*.a.example", "b.example")), write("late", server("c.example", ends=-1)),
        write("open", server("d.example"), mode=0o644), write("swapped", server("e.example"), pki.new_key()),
        write("nameless", server("10.0.0.1")), {"certificate": str(tmp_path / "nowhere")},
    )  # fmt: skip
    yesterday = f"{NOW - days(1):%Y-%m-%d}"
    assert found == [
        ("server certificate", Level.OK, "main.pem"),
        ("server certificate good.pem", Level.OK, "for *.a.example, b.example"),
        ("server certificate late.pem", Level.PROBLEM, f"expired on {yesterday}"),
        ("server certificate open.pem", Level.PROBLEM, "others may read the key in open.key"),
        ("server certificate swapped.pem", Level.PROBLEM, "swapped.key is not the key of swapped.pem"),
        ("server certificate nameless.pem", Level.PROBLEM, "has no host name by which it could be chosen"),
        ("server certificate nowhere", Level.PROBLEM, "cannot read nowhere: No such file or directory"),
    ]


async def test_a_name_may_be_in_the_certificate_of_a_host(tmp_path: Path) -> None:
    leaf = server("*.a.example")
    file = tmp_path / "host.pem"
    file.write_bytes(pki.write_key(leaf.key).encode() + leaf.pem)
    file.chmod(0o600)
    endpoints = {"murl": "ssl://gw.a.example:1", "hurl": "https://localhost"}
    found = await of_hosts(tmp_path, {"certificate": str(file)}, endpoints=endpoints)
    assert [status for _, status, _ in found] == [Level.OK, Level.OK]
    found = await of_hosts(tmp_path, endpoints=endpoints)
    assert found[0][1:] == (Level.WARNING, "is not for gw.a.example: devices that check names refuse it")


async def test_the_certificate_of_our_own(tmp_path: Path) -> None:
    async def found(**more: Any) -> list[tuple[Level, str]]:
        settings = settings_for("", data_dir=tmp_path, **more)
        return [(each.status, each.finding) async for each in doctor_certificates.of_server(settings)]

    assert await found() == [(Level.INFO, "there is none yet: the service makes one at its start")]
    (tmp_path / "tls").mkdir()
    file, leaf = tmp_path / "tls" / "server.pem", server("localhost", "127.0.0.1", "::1", ends=-0.5)
    file.write_bytes(pki.write_key(leaf.key).encode() + leaf.pem)
    file.chmod(0o600)
    ((status, said),) = await found()
    assert (status, said.startswith("expired on ")) == (Level.WARNING, True), "the service renews it"
    ((_, _), (status, said)) = await found(tls={"names": ["localhost", "gw.example"]})
    assert said == "is not for gw.example: devices that check names refuse it"
    assert (Level.PROBLEM, "tls.key is set, and tls.certificate is not") in await found(tls={"key": file})
