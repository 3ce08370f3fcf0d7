"""`gatehouse ca`; OpenSSL judges what it writes."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from provisioning.core import pki
from provisioning.store import authorities
from provisioning.store.database import Database
from tests.openssl import Made, made, openssl, run, write
from tests.provisioning.cli.conftest import Command

pytestmark = pytest.mark.server


def key_file(path: Path, of: Made, password: str = "") -> str:
    how = serialization.BestAvailableEncryption(password.encode()) if password else serialization.NoEncryption()
    path.write_bytes(
        of.key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, how)
    )
    return str(path)


def company(path: Path, root: Made, own: Made) -> tuple[str, str, str]:
    """Files: its certificate, its key, its chain."""
    return (
        str(write(path / "own.pem", own.certificate)),
        key_file(path / "own.key", own),
        str(write(path / "root.pem", root.certificate)),
    )


# --- create ---


async def test_the_first_authority_is_the_default_and_openssl_reads_it(command: Command, tmp_path: Path) -> None:
    shown = (await command("ca", "create", "acme", "--organization", "Acme", "--json")).row
    assert (shown["authority"], shown["default"], shown["key"], shown["status"]) == ("acme-1", True, "p256", "valid")
    file = tmp_path / "ca.pem"
    await command("ca", "export", "acme", str(file))
    assert "OK" in openssl("verify", "-x509_strict", "-check_ss_sig", "-CAfile", file, file)
    said = openssl("x509", "-in", file, "-noout", "-subject", "-serial", "-ext", "basicConstraints,keyUsage")
    assert "O = Acme, CN = Gatehouse CA acme" in said
    assert f"serial={shown['serial'].upper()}" in said.replace("serial=0", "serial=")
    assert "CA:TRUE, pathlen:0" in said
    assert file.stat().st_mode & 0o777 == 0o644


async def test_what_is_stated_stands_in_the_certificate(command: Command, tmp_path: Path) -> None:
    options = (
        "--key",
        "rsa2048",
        "--years",
        "3",
        "--subject",
        "My CA",
        "--path-length",
        "2",
        "--permit-dns",
        "a.example",
    )
    shown = (await command("ca", "create", "acme", *options, "--permit-dns", "b.example", "--json")).row
    years = datetime.fromisoformat(shown["not_after"]) - datetime.now(UTC)
    assert 3 * 365 - 1 <= years.days <= 3 * 365
    file = tmp_path / "ca.pem"
    file.write_text((await command("ca", "show", "acme-1", "--pem")).out)
    said = openssl("x509", "-in", file, "-noout", "-text")
    for words in ("CN = My CA", "(2048 bit)", "pathlen:2", "DNS:a.example", "DNS:b.example"):
        assert words in said, words
    more = (await command("ca", "show", "acme", "--json")).row
    assert (more["path_length"], more["permitted"], more["chain"]) == (2, ["a.example", "b.example"], [])


async def test_the_settings_say_what_is_not_stated(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GATEHOUSE_PKI__KEY", "p384")
    monkeypatch.setenv("GATEHOUSE_PKI__AUTHORITY_YEARS", "2")
    shown = (await command("ca", "create", "acme", "--json")).row
    assert shown["key"] == "p384"
    assert (datetime.fromisoformat(shown["not_after"]) - datetime.now(UTC)).days in {729, 730}


async def test_another_default(command: Command) -> None:
    await command("ca", "create", "a")
    assert (await command("ca", "create", "b", "--json")).row["default"] is False
    assert (await command("ca", "create", "c", "--default", "--json")).row["default"] is True
    assert (await command("ca", "default", "b", "--json")).row["authority"] == "b-1"
    listed = (await command("ca", "list", "--json")).rows
    assert [(each["authority"], each["default"]) for each in listed] == [("a-1", False), ("b-1", True), ("c-1", False)]
    assert [line[:5] for line in (await command("ca", "list")).table][1] == ["b-1", "yes", "valid", "yes", "p256"]


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["create", "acme"], "there is an authority acme already; `gatehouse ca rotate` makes its next generation"),
        (["create", "new", "--subject", "Gatehouse CA acme"],
         "another authority has this subject: state another one with --subject"),
        (["create", "new-2"], "name must not end in a hyphen and digits: new-2 would read as a generation"),
        (["create", "New"], "name must be 1 to 40 lower-case letters, digits and hyphens"),
        (["create", ""], "name must be 1 to 40 lower-case letters, digits and hyphens"),
        (["create", "new", "--years", "0"], "years must be 1 to 100"),
        (["create", "new", "--path-length", "-1"], "path_length must be 0 to 7"),
        (["create", "new", "--permit-dns", "no name"], "names 'no name' is neither a DNS name nor an IP address"),
        (["create", "new", "--permit-dns", "10.0.0.1"],
         "names must be DNS names: an authority is kept to trees of them"),
        (["create", "new", "--organization", "\x1b[2J"],
         "subject has characters in O of its subject that cannot be printed"),
        (["show", "nope"], "there is no authority nope"),
        (["show", "acme-2"], "there is no authority acme-2"),
        (["export", "nope"], "there is no authority nope"),
        (["export", "acme", "/nowhere/file"], "cannot write /nowhere/file: No such file or directory"),
        (["default", "nope"], "there is no authority nope"),
        (["rotate", "nope"], "there is no authority nope"),
        (["distrust", "acme-1"], "authority acme-1 cannot go: it is the default: rotate it, or set another one"),
        (["restore", "acme-1"], "authority acme-1 is trusted: cannot restore"),
    ],
)  # fmt: skip
async def test_refusals_are_one_line(command: Command, args: list[str], words: str) -> None:
    await command("ca", "create", "acme")
    assert (await command("ca", *args, code=1)).err == f"gatehouse: {words}\n"
    assert [each["authority"] for each in (await command("ca", "list", "--json")).rows] == ["acme-1"]


@pytest.mark.parametrize(
    "args",
    [
        ["create", "acme", "--key", "p521"], ["distrust", "acme"], ["restore", "acme"],
        ["rotate", "acme", "--key-file", "f"], ["rotate", "acme", "--certificate", "f", "--years", "2"],
    ],
)  # fmt: skip
async def test_wrong_usage(command: Command, args: list[str]) -> None:
    assert "Usage:" in (await command("ca", *args, code=2)).err


# --- rotate, distrust ---


async def test_a_rotation_makes_the_next_generation_of_the_same_kind(command: Command) -> None:
    await command("ca", "create", "acme", "--key", "p384", "--path-length", "1", "--permit-dns", "a.example")
    new = (await command("ca", "rotate", "acme", "--json")).row
    assert (new["authority"], new["default"], new["key"]) == ("acme-2", True, "p384")
    shown = (await command("ca", "show", "acme", "--json")).row
    assert (shown["generation"], shown["path_length"], shown["permitted"]) == (2, 1, ["a.example"])
    assert (await command("ca", "show", "acme-1", "--json")).row["status"] == "retired"
    assert (await command("ca", "rotate", "acme", "--key", "p256", "--json")).row["key"] == "p256"
    for args in (["rotate", "acme-1"], ["default", "acme-1"]):
        refused = await command("ca", *args, code=1)
        assert refused.err.startswith("gatehouse: authority acme-1 is retired: cannot ")


async def test_what_is_distrusted_and_restored(command: Command) -> None:
    await command("ca", "create", "acme")
    await command("ca", "create", "other")
    assert (await command("ca", "distrust", "other-1", "--json")).row["status"] == "distrusted"
    again = await command("ca", "distrust", "other-1", code=1)
    assert again.err == "gatehouse: authority other-1 is distrusted already\n"
    assert (await command("ca", "restore", "other-1", "--json")).row["status"] == "valid"


# --- export ---


async def test_the_crl_says_what_is_revoked(command: Command, tmp_path: Path) -> None:
    await command("ca", "create", "acme")
    await command("product", "create", "pk1")
    await command("device", "create", "pk1", "dk1")
    leaf, both = tmp_path / "leaf.pem", tmp_path / "ca.pem"
    await command("cert", "issue", "pk1", "dk1", "--key-out", str(tmp_path / "k"), "--out", str(leaf))
    await command("ca", "export", "acme", str(both), "--crl")
    assert "OK" in openssl("verify", "-x509_strict", "-crl_check", "-CAfile", both, leaf)
    serial = (await command("cert", "list", "--json")).row["serial"]
    await command("cert", "revoke", serial, "--reason", "keyCompromise")
    both.write_text((await command("ca", "export", "acme", "--crl")).out)
    code, said = run("verify", "-x509_strict", "-crl_check", "-CAfile", both, leaf)
    assert (code, "certificate revoked" in said) == (2, True), said


# --- import ---


async def test_a_company_s_own_authority_issues(command: Command, tmp_path: Path) -> None:
    root = made("Root")
    cert, key, chain = company(tmp_path, root, made("Issuing", root, path_length=0))
    shown = (await command("ca", "import", "acme", cert, "--key", key, "--chain", chain, "--default", "--json")).row
    assert (shown["signs"], shown["default"], shown["subject"]) == (True, True, "CN=Issuing")
    assert (await command("ca", "show", "acme", "--json")).row["chain"] == ["CN=Root"]
    leaf = tmp_path / "leaf.pem"
    await command("cert", "issue", "--server", "gw.example", "--key-out", str(tmp_path / "k"), "--out", str(leaf))
    # The file has the intermediate, too: a client knows the root alone.
    said = openssl("verify", "-x509_strict", "-purpose", "sslserver", "-CAfile", chain, "-untrusted", leaf, leaf)
    assert "OK" in said


async def test_an_encrypted_key(command: Command, tmp_path: Path) -> None:
    own = made("Root")
    cert, key = str(write(tmp_path / "c", own.certificate)), key_file(tmp_path / "k", own, "pass word")
    password, wrong, empty = (tmp_path / name for name in ("p", "w", "e"))
    password.write_bytes(b"pass word\r\n")
    wrong.write_text("other")
    empty.write_text("")
    assert (await command("ca", "import", "acme", cert, "--key", key, code=1)).err == (
        "gatehouse: key is encrypted: state its password\n"
    )
    refused = await command("ca", "import", "acme", cert, "--key", key, "--password-file", str(wrong), code=1)
    assert refused.err.startswith("gatehouse: key cannot be read: ")
    refused = await command("ca", "import", "acme", cert, "--key", key, "--password-file", str(empty), code=1)
    assert refused.err == f"gatehouse: {empty} has no password in its first line\n"
    await command("ca", "import", "acme", cert, "--key", key, "--password-file", str(password))


async def test_the_key_is_sealed_and_nowhere_shown(command: Command, database: Database, tmp_path: Path) -> None:
    own = made("Root")
    cert, key = str(write(tmp_path / "c", own.certificate)), key_file(tmp_path / "k", own)
    shown = await command("ca", "import", "acme", cert, "--key", key)
    shown_too = await command("ca", "show", "acme", "--json")
    assert "PRIVATE" not in shown.out + shown.err + shown_too.out
    async with database.read() as tx:
        stored = await tx.db.fetchval("SELECT key FROM authority")
        assert b"PRIVATE" not in stored
        authority = await authorities.find(tx, "acme")
        assert authority is not None
        assert pki.read_key((await authorities.key(tx, authority))[0]).public_key() == own.key.public_key()


async def test_what_is_trusted_only_issues_nothing(command: Command, tmp_path: Path) -> None:
    cert = str(write(tmp_path / "c", made("Elsewhere").certificate))
    shown = (await command("ca", "import", "acme", cert, "--json")).row
    assert (shown["signs"], shown["default"]) == (False, False)
    refused = await command("ca", "default", "acme", code=1)
    assert refused.err == "gatehouse: authority acme-1 is without a key: cannot issue\n"
    refused = await command("ca", "export", "acme", "--crl", code=1)
    assert refused.err == "gatehouse: authority acme-1 is without a key: cannot sign\n"
    refused = await command("ca", "rotate", "acme", code=1)
    assert refused.err == "gatehouse: acme-1 was issued elsewhere: its next generation comes with --certificate\n"
    successor = str(write(tmp_path / "n", made("Elsewhere 2").certificate))
    assert (await command("ca", "rotate", "acme", "--certificate", successor, "--json")).row["authority"] == "acme-2"


async def test_a_company_s_next_generation(command: Command, tmp_path: Path) -> None:
    root = made("Root")
    cert, key, chain = company(tmp_path, root, made("Issuing", root, path_length=0))
    await command("ca", "import", "acme", cert, "--key", key, "--chain", chain)
    cert, key, chain = company(tmp_path, root, made("Issuing 2", root, path_length=0))
    new = await command("ca", "rotate", "acme", "--certificate", cert, "--key-file", key, "--chain", chain, "--json")
    assert (new.row["authority"], new.row["default"], new.row["signs"]) == ("acme-2", True, True)


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("garbage", "certificate is neither PEM nor DER"),
        ("empty", "certificate cannot be read: "),
        ("other key", "key is not the key of CN=Issuing"),
        ("no key", "key cannot be read: not a private key in PEM, damaged, or another password"),
        ("no chain", "chain does not lead from CN=Issuing (issued by CN=Root) to a self-signed certificate"),
        ("expired", "chain CN=Issuing expired on 2025-01-01 00:00:00 UTC"),
        ("leaf", "certificate CN=Issuing is not an authority: basicConstraints must say CA:TRUE"),
        ("weak", "key has an RSA key of 1024 bits; 2048 to 4096 are accepted"),
        ("absent", "cannot read /nowhere/file: No such file or directory"),
        ("directory", "cannot read /: Is a directory"),
        ("large", "/dev/zero has more than 1048576 bytes"),
    ],
)
async def test_an_authority_that_does_not_do(command: Command, tmp_path: Path, fault: str, words: str) -> None:
    refused = await command("ca", "import", "acme", *faulty(tmp_path, fault), code=1)
    assert refused.err.startswith(f"gatehouse: {words}")
    assert refused.err.count("\n") == 1
    assert (await command("ca", "list")).out == ""


def faulty(path: Path, fault: str) -> list[str]:
    """Arguments of an import with one thing wrong."""
    root = made("Root")
    changes: dict[str, dict[str, Any]] = {
        "expired": {"not_after": datetime(2025, 1, 1, tzinfo=UTC)},
        "leaf": {"ca": False},
        "weak": {"key": rsa.generate_private_key(65537, 1024)},
    }
    cert, key, chain = company(path, root, made("Issuing", root, **changes.get(fault, {})))
    (path / "garbage").write_bytes(b"\xff\x00 nonsense")
    (path / "empty").touch()
    files: dict[str, tuple[str, str, str | None]] = {
        "garbage": (str(path / "garbage"), key, chain),
        "empty": (str(path / "empty"), key, chain),
        "other key": (cert, key_file(path / "other.key", root), chain),
        "no key": (cert, cert, chain),
        "no chain": (cert, key, None),
        "absent": ("/nowhere/file", key, chain),
        "directory": (cert, key, "/"),
        "large": (cert, "/dev/zero", chain),
    }
    cert, key, stated = files.get(fault, (cert, key, chain))
    return [cert, "--key", key, *(["--chain", stated] if stated else [])]


async def test_an_import_of_what_is_known(command: Command, tmp_path: Path) -> None:
    own = made("Root")
    cert, key = str(write(tmp_path / "c", own.certificate)), key_file(tmp_path / "k", own)
    await command("ca", "import", "acme", cert, "--key", key)
    refused = await command("ca", "import", "other", cert, "--key", key, code=1)
    assert refused.err == "gatehouse: this certificate is known already\n"
    refused = await command("ca", "import", "other", cert, "--default", code=1)
    assert refused.err.startswith("gatehouse: --chain, --password-file and --default are for an authority that signs")


async def test_from_standard_input(command: Command) -> None:
    pem = made("Root").pem
    assert (await command("ca", "import", "acme", "-", "--json", stdin=pem)).row["subject"] == "CN=Root"
