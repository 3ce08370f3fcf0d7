"""`gatehouse cert issue | renew`; OpenSSL makes the requests, and judges what comes."""

import itertools
import stat
from pathlib import Path

import pytest
from cryptography import x509

from tests.openssl import openssl
from tests.provisioning.cli.conftest import Command

pytestmark = pytest.mark.server


@pytest.fixture
async def anchor(command: Command, tmp_path: Path) -> Path:
    """File of the authority, beside a device pk1/dk1."""
    await command("ca", "create", "acme")
    await command("product", "create", "pk1")
    await command("device", "create", "pk1", "dk1")
    await command("ca", "export", "acme", str(tmp_path / "anchor.pem"))
    return tmp_path / "anchor.pem"


def request(path: Path, *more: str, key: str = "ec:prime256v1", subject: str = "/O=Acme/CN=pump 1") -> Path:
    """A request as OpenSSL writes it, and its key beside it."""
    kind, _, option = key.partition(":")
    name = {"ec": "ec_paramgen_curve", "rsa": "rsa_keygen_bits"}[kind]
    openssl("req", "-new", "-newkey", kind, "-pkeyopt", f"{name}:{option}", "-nodes", "-subj", subject,
            "-keyout", f"{path}.key", "-out", path, *more)  # fmt: skip
    return path


def names_in(path: Path) -> set[str]:
    return {each.name for each in path.iterdir()}


def verified(leaf: Path, anchor: Path, purpose: str = "sslclient") -> str:
    assert "OK" in openssl("verify", "-x509_strict", "-purpose", purpose, "-CAfile", anchor, leaf)
    return openssl("x509", "-in", leaf, "-noout", "-text")


# --- a device ---


async def test_a_key_that_is_made_now(command: Command, anchor: Path, tmp_path: Path) -> None:
    key, leaf = tmp_path / "dk1.key", tmp_path / "dk1.pem"
    done = await command("cert", "issue", "pk1", "dk1", "--key-out", str(key), "--out", str(leaf))
    assert done.out == ""
    assert done.err.startswith("certificate ")
    assert done.err.endswith(f", in {leaf}\n")
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    said = verified(leaf, anchor)
    assert "Subject: O = pk1, CN = dk1" in said
    assert "TLS Web Client Authentication" in said
    of_key, of_leaf = openssl("pkey", "-in", key, "-pubout"), openssl("x509", "-in", leaf, "-noout", "-pubkey")
    assert of_key == of_leaf


@pytest.mark.parametrize(("kind", "words"), [("rsa2048", "(2048 bit)"), ("p384", "secp384r1")])
async def test_other_kinds_of_keys(command: Command, anchor: Path, tmp_path: Path, kind: str, words: str) -> None:
    leaf = tmp_path / "leaf.pem"
    key = str(tmp_path / "k")
    await command("cert", "issue", "pk1", "dk1", "--key", kind, "--key-out", key, "--out", str(leaf))
    assert words in verified(leaf, anchor)


async def test_no_key_is_kept_or_printed(command: Command, anchor: Path, tmp_path: Path) -> None:
    key = tmp_path / "k"
    done = await command("cert", "issue", "pk1", "dk1", "--key-out", str(key), "--json")
    inventory = await command("cert", "export", "-")
    secret = key.read_text().splitlines()[1]
    assert secret not in done.out + done.err + inventory.out
    assert "PRIVATE" not in done.out + done.err + inventory.out


@pytest.mark.parametrize("key", ["ec:prime256v1", "rsa:2048"])
async def test_a_request_from_openssl(command: Command, anchor: Path, tmp_path: Path, key: str) -> None:
    csr = request(tmp_path / "csr", "-addext", "subjectAltName=DNS:evil.example", key=key)
    leaf = tmp_path / "leaf.pem"
    leaf.write_text((await command("cert", "issue", "pk1", "dk1", "--csr", str(csr))).out)
    said = verified(leaf, anchor)
    assert "Subject: O = Acme, CN = pump 1" in said
    assert "evil" not in said, "what a request asks for is not what it gets"
    assert openssl("x509", "-in", leaf, "-noout", "-pubkey") == openssl("req", "-in", csr, "-noout", "-pubkey")
    assert (await command("cert", "list", "--json")).row["device"] == "dk1"


async def test_a_request_in_der_from_standard_input(command: Command, anchor: Path, tmp_path: Path) -> None:
    csr = request(tmp_path / "csr", "-outform", "DER").read_bytes()
    issued = (await command("cert", "issue", "pk1", "dk1", "--csr", "-", "--json", stdin=csr)).row
    assert issued["subject"] == "CN=pump 1,O=Acme"


async def test_a_request_without_a_subject_gets_the_device_s(command: Command, anchor: Path, tmp_path: Path) -> None:
    csr = request(tmp_path / "csr", subject="/")
    issued = (await command("cert", "issue", "pk1", "dk1", "--csr", str(csr), "--json")).row
    assert issued["subject"] == "CN=dk1,O=pk1"


async def test_the_addresses_of_crl_and_ocsp(
    command: Command, anchor: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    leaf = tmp_path / "leaf.pem"

    async def issued(number: int) -> str:
        leaf.unlink(missing_ok=True)
        await command("cert", "issue", "pk1", "dk1", "--key-out", str(tmp_path / f"k{number}"), "--out", str(leaf))
        return verified(leaf, anchor)

    assert "URI:" not in await issued(1), "with a port that nobody knows there is no address"
    monkeypatch.setenv("GATEHOUSE_PKI__URL", "http://pki.example/")
    said = await issued(2)
    for address in ("crl.der", "ocsp", "ca.der"):
        assert f"URI:http://pki.example/pki/acme-1/{address}\n" in said


async def test_validity(command: Command, anchor: Path, tmp_path: Path) -> None:
    numbers = itertools.count()

    async def lives(*args: str) -> int:
        key = str(tmp_path / f"k{next(numbers)}")
        issued = (await command("cert", "issue", *args, "--key-out", key, "--json")).row
        parsed = x509.load_pem_x509_certificate(issued["certificate"].encode())
        return (parsed.not_valid_after_utc - parsed.not_valid_before_utc).days

    assert await lives("pk1", "dk1") == 730
    assert await lives("--server", "gw.example") == 397
    assert await lives("pk1", "dk1", "--days", "9") == 9
    await command("ca", "create", "short", "--years", "1")
    assert await lives("pk1", "dk1", "--days", "3650", "--authority", "short") == 365, "never beyond its issuer"


# --- a server ---


async def test_a_server(command: Command, anchor: Path, tmp_path: Path) -> None:
    key, leaf = str(tmp_path / "k"), tmp_path / "leaf.pem"
    await command("cert", "issue", "--server", "gw.example", "10.0.0.1", "::1", "--key-out", key, "--out", str(leaf))
    said = verified(leaf, anchor, "sslserver")
    assert "DNS:gw.example, IP Address:10.0.0.1, IP Address:0:0:0:0:0:0:0:1" in said
    for name in ("-verify_hostname gw.example", "-verify_ip 10.0.0.1", "-verify_ip ::1"):
        openssl("verify", "-CAfile", anchor, *name.split(), leaf)


async def test_a_server_s_request(command: Command, anchor: Path, tmp_path: Path) -> None:
    csr = request(tmp_path / "csr", "-addext", "subjectAltName=DNS:evil.example")
    issued = (await command("cert", "issue", "--server", "gw.example", "--csr", str(csr), "--json")).row
    assert (issued["names"], issued["subject"]) == (["gw.example"], "CN=pump 1,O=Acme")


# --- what cannot be ---


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["pk1", "nope"], "there is no device nope in product pk1"),
        (["nope", "dk1"], "there is no product nope"),
        (["pk1", "dk1", "--authority", "nope"], "there is no authority nope"),
        (["pk1", "dk1", "--authority", "acme-9"], "there is no authority acme-9"),
        (["pk1", "dk1", "--days", "0"], "days must be 1 to 3650 (the setting pki.max_leaf_days)"),
        (["pk1", "dk1", "--days", "3651"], "days must be 1 to 3650 (the setting pki.max_leaf_days)"),
        (["--server", "b@d name"], "names 'b@d name' is neither a DNS name nor an IP address"),
        (["--server", ""], "names '' is neither a DNS name nor an IP address"),
        (["pk1", "dk1", "--out", "/nowhere/file"], "cannot write /nowhere/file: No such file or directory"),
    ],
)
async def test_what_is_refused_leaves_no_file(
    command: Command, anchor: Path, tmp_path: Path, args: list[str], words: str
) -> None:
    refused = await command("cert", "issue", *args, "--key-out", str(tmp_path / "k"), code=1)
    assert refused.err == f"gatehouse: {words}\n"
    assert names_in(tmp_path) == {"anchor.pem"}
    assert (await command("cert", "list")).out == ""


async def test_what_constraints_forbid(command: Command, anchor: Path, tmp_path: Path) -> None:
    await command("ca", "create", "kept", "--permit-dns", "a.example")
    key = str(tmp_path / "k")
    args = ("--server", "b.example", "--authority", "kept", "--key-out", key)
    refused = await command("cert", "issue", *args, code=1)
    assert refused.err == "gatehouse: names CN=Gatehouse CA kept may not certify the name b.example\n"


@pytest.mark.parametrize("option", ["--key-out", "--out"])
async def test_a_file_that_is_there_stays(command: Command, anchor: Path, tmp_path: Path, option: str) -> None:
    there = tmp_path / "there"
    there.write_text("precious")
    options = {"--key-out": str(tmp_path / "new"), option: str(there)}
    args = [word for pair in options.items() for word in pair]
    refused = await command("cert", "issue", "pk1", "dk1", *args, code=1)
    assert refused.err == f"gatehouse: there is a file {there} already; it stays as it is\n"
    assert there.read_text() == "precious"
    assert not (tmp_path / "new").exists()
    assert (await command("cert", "list")).out == ""


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"\x00\xff garbage", "csr is neither PEM nor DER"),
        (b"-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n", "csr cannot be read: "),
        (b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "csr has no block "),
        (b"x" * 20_000, "csr has more than 16384 bytes"),
    ],
)
async def test_garbage(command: Command, anchor: Path, tmp_path: Path, content: bytes, words: str) -> None:
    csr = tmp_path / "csr"
    csr.write_bytes(content)
    refused = await command("cert", "issue", "pk1", "dk1", "--csr", str(csr), code=1)
    assert refused.err.startswith(f"gatehouse: {words}")
    assert refused.err.count("\n") == 1


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (("ec:secp256k1", "/CN=x"), "csr has a key on secp256k1; P-256 and P-384 are accepted"),
        (("rsa:1024", "/CN=x"), "csr has an RSA key of 1024 bits; 2048 to 4096 are accepted"),
        (("ec:prime256v1", "/CN=a/CN=b"), "csr has CN twice in its subject"),
    ],
)
async def test_a_request_that_does_not_do(
    command: Command, anchor: Path, tmp_path: Path, asked: tuple[str, str], words: str
) -> None:
    csr = request(tmp_path / "csr", key=asked[0], subject=asked[1])
    refused = await command("cert", "issue", "pk1", "dk1", "--csr", str(csr), code=1)
    assert refused.err == f"gatehouse: {words}\n"


async def test_a_changed_request(command: Command, anchor: Path, tmp_path: Path) -> None:
    csr = request(tmp_path / "csr", "-outform", "DER")
    csr.write_bytes(csr.read_bytes().replace(b"pump 1", b"pump 2"))
    refused = await command("cert", "issue", "pk1", "dk1", "--csr", str(csr), code=1)
    assert refused.err.startswith("gatehouse: csr has a signature that does not hold: ")


async def test_without_an_authority(command: Command, tmp_path: Path) -> None:
    args = ("--server", "gw.example", "--key-out", str(tmp_path / "k"))
    refused = await command("cert", "issue", *args, code=1)
    assert refused.err == (
        "gatehouse: there is no default authority: `gatehouse ca create NAME` makes one, and so does the first start\n"
    )


@pytest.mark.parametrize(
    "args",
    [
        ["pk1", "dk1"], ["pk1"], ["pk1", "dk1", "x", "--key-out", "k"], ["--server"],
        ["pk1", "dk1", "--key-out", "-"], ["pk1", "dk1", "--key-out", "k", "--csr", "c"],
    ],
)  # fmt: skip
async def test_wrong_usage(command: Command, args: list[str]) -> None:
    assert "Usage:" in (await command("cert", "issue", *args, code=2)).err


# --- renew ---


async def test_a_renewal_keeps_key_subject_and_names(command: Command, anchor: Path, tmp_path: Path) -> None:
    key, old, new = str(tmp_path / "k"), tmp_path / "old.pem", tmp_path / "new.pem"
    await command("cert", "issue", "--server", "gw.example", "--key-out", key, "--out", str(old))
    serial = (await command("cert", "list", "--json")).row["serial"]
    await command("cert", "renew", serial, "--out", str(new))
    for what in ("-pubkey", "-subject", "-ext=subjectAltName"):
        words = what.split("=")
        assert openssl("x509", "-in", new, "-noout", *words) == openssl("x509", "-in", old, "-noout", *words)
    assert openssl("x509", "-in", new, "-noout", "-serial") != openssl("x509", "-in", old, "-noout", "-serial")
    verified(new, anchor, "sslserver")
    before, after = (await command("cert", "list", "--json")).rows
    assert (before["status"], after["status"]) == ("valid", "valid")
    assert (await command("cert", "show", serial, "--json")).row["superseded_by"] == after["serial"]


async def test_the_latest_generation_renews(command: Command, anchor: Path, tmp_path: Path) -> None:
    key = str(tmp_path / "k")
    serial = (await command("cert", "issue", "pk1", "dk1", "--key-out", key, "--json")).row["serial"]
    await command("ca", "rotate", "acme")
    await command("ca", "create", "other")
    assert (await command("cert", "renew", serial, "--json")).row["authority"] == "acme-2"
    renewed = (await command("cert", "renew", serial, "--authority", "other", "--days", "9", "--json")).row
    assert (renewed["authority"], renewed["device"]) == ("other-1", "dk1")
    refused = await command("cert", "renew", serial, "--authority", "acme-1", code=1)
    assert refused.err == "gatehouse: authority acme-1 is retired: cannot issue\n"


async def test_a_responder_renews_itself(command: Command, anchor: Path, database_url: str, tmp_path: Path) -> None:
    import asyncpg

    key = str(tmp_path / "k")
    serial = (await command("cert", "issue", "pk1", "dk1", "--key-out", key, "--json")).row["serial"]
    connection = await asyncpg.connect(database_url)
    await connection.execute("UPDATE certificate SET profile = 'ocsp'")
    await connection.close()
    refused = await command("cert", "renew", serial, code=1)
    assert refused.err == f"gatehouse: certificate {serial} is that of an OCSP responder: the service renews it\n"


# --- certificates of others ---


@pytest.mark.usefixtures("anchor")
async def test_a_certificate_that_others_issued(command: Command, tmp_path: Path) -> None:
    root, leaf = tmp_path / "root.pem", tmp_path / "leaf.pem"
    openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "30", "-subj",
            "/CN=Company Root", "-keyout", tmp_path / "root.key", "-out", root,
            "-addext", "keyUsage=critical,keyCertSign,cRLSign")  # fmt: skip
    request(tmp_path / "leaf.csr", subject="/CN=dk1")
    (tmp_path / "leaf.ext").write_text("extendedKeyUsage=clientAuth\n")
    openssl("x509", "-req", "-in", tmp_path / "leaf.csr", "-CA", root, "-CAkey", tmp_path / "root.key", "-days", "10",
            "-extfile", tmp_path / "leaf.ext", "-out", leaf)  # fmt: skip
    refused = await command("cert", "adopt", "pk1", "dk1", str(leaf), "--authority", "company", code=1)
    assert "there is no authority company" in refused.err
    await command("ca", "import", "company", str(root))
    done = await command("cert", "adopt", "pk1", "dk1", str(leaf), "--authority", "company")
    assert done.out.startswith("adopted certificate ")
    assert (
        "known already"
        in (await command("cert", "adopt", "pk1", "dk1", str(leaf), "--authority", "company", code=1)).err
    )
    assert "dk1" in (await command("cert", "list", "--authority", "company")).out
