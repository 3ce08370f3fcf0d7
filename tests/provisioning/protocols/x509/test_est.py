"""provisioning/protocols/x509/est.py: enrolment with ordinary tools."""

import asyncio
import base64
import json
import shutil
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from provisioning.app import Running
from provisioning.core import ca, enrol_certificate, inventory, pki, registry
from provisioning.model.certificate import Certificate, Profile, Revocation, Status
from provisioning.store import certificates, devices
from provisioning.store.database import Database
from tests.certificates import days, issue, parsed, request_of, run, stored
from tests.conftest import load_rows
from tests.devices import DEVICE, PRODUCT
from tests.openssl import made, openssl, verify
from tests.pki_site import Reply, Served, load, pki_site
from tests.provisioning.protocols.x509.conftest import Lines

pytestmark = pytest.mark.server

EST = "/.well-known/est"
ENROLL, REENROLL = f"{EST}/simpleenroll", f"{EST}/simplereenroll"
PKCS10 = {"Content-Type": "application/pkcs10"}


def basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


DK1 = basic("dk1&pk1", "ds1")
NOT_PROVEN = (401, "show the certificate of a device, or its user name and secret\n")


def now() -> datetime:
    return datetime.now(UTC).replace(microsecond=0)


class Client:
    """A device with `openssl req` and an HTTP client."""

    def __init__(self, served: Served, name: str = "dk1") -> None:
        self.served = served
        self.name = name
        self.certificate = served.directory / f"{name}.pem"
        self.own_key = served.directory / f"{name}.key"
        """Of the certificate."""
        self.key = served.directory / f"{name}.next.key"
        """Of the latest request."""

    def request(self, subject: str = "", *, new_key: bool = True, kind: str = "ec", form: str = "DER") -> bytes:
        """A signing request by the tool that everybody has: DER in base64, as the RFC has it, or PEM."""
        csr = self.served.directory / f"{self.name}.csr"
        if new_key:
            curve = ["-pkeyopt", "ec_paramgen_curve:P-256"] if kind == "ec" else ["-pkeyopt", "rsa_keygen_bits:2048"]
            openssl("genpkey", "-algorithm", kind, *curve, "-out", self.key)
        subject = subject or f"/O=Example/CN={self.name}"
        openssl("req", "-new", "-key", self.key, "-subj", subject, "-outform", form, "-out", csr)
        return base64.encodebytes(csr.read_bytes()) if form == "DER" else csr.read_bytes()

    async def post(self, path: str, body: bytes, *, show: bool = False, auth: str = "", **more: Any) -> Reply:
        """`auth`: the Authorization; `show`: our certificate, in the handshake."""
        more["headers"] = more.get("headers", PKCS10) | ({"Authorization": auth} if auth else {})
        if show:
            more["ssl"] = self.served.trusting(self.certificate, self.own_key)
        return await self.served.call("POST", self.served.secure + path, data=body, **more)

    async def enroll(self, path: str = ENROLL, **request: Any) -> x509.Certificate:
        return self.keep(await self.post(path, self.request(**request), auth=DK1))

    def keep(self, reply: Reply) -> x509.Certificate:
        """Read what was issued with OpenSSL, and use it from now on."""
        (found,) = read_certs_only(self.served, reply)
        openssl("x509", "-in", found, "-out", self.certificate)
        self.own_key.write_bytes(self.key.read_bytes())
        return pki.read_certificate(self.certificate.read_bytes())

    async def in_inventory(self) -> Certificate:
        der = base64.b64decode("".join(self.certificate.read_text().splitlines()[1:-1]))
        found = await run(self.served.database, certificates.by_fingerprint, pki.fingerprint(der))
        assert isinstance(found, Certificate)
        return found


def read_certs_only(served: Served, reply: Reply) -> list[Path]:
    """The certificates of a certs-only reply, in files, as OpenSSL reads them."""
    assert reply.status == 200, reply.text
    assert reply.headers["Content-Type"] == "application/pkcs7-mime; smime-type=certs-only"
    assert reply.headers["Content-Transfer-Encoding"] == "base64"
    message = served.directory / "reply.p7"
    message.write_bytes(base64.b64decode(reply.body, validate=False))
    said = openssl("pkcs7", "-inform", "DER", "-in", message, "-print_certs")
    found = []
    for number, block in enumerate(said.split("-----BEGIN CERTIFICATE-----")[1:]):
        path = served.directory / f"certs-only-{number}.pem"
        path.write_text("-----BEGIN CERTIFICATE-----" + block.split("-----END")[0] + "-----END CERTIFICATE-----\n")
        found.append(path)
    return found


@pytest.fixture
def client(served: Served) -> Client:
    return Client(served)


# --- what works ---


@pytest.mark.parametrize("secure", [False, True], ids=["http", "https"])
@pytest.mark.parametrize("label", ["", "/gatehouse"])
async def test_cacerts(served: Served, label: str, *, secure: bool) -> None:
    reply = await served.call("GET", f"{served.secure if secure else served.base}{EST}{label}/cacerts")
    (found,) = read_certs_only(served, reply)
    assert pki.read_certificate(found.read_bytes()) == parsed(served.authority)


async def test_cacerts_after_a_rotation(served: Served) -> None:
    other = await run(served.database, ca.create, "other", pki.new_key(), now=now())
    new = await run(served.database, ca.rotate, served.authority, pki.new_key(), now=now())
    reply = await served.call("GET", f"{EST}/cacerts")
    found = {pki.read_certificate(each.read_bytes()) for each in read_certs_only(served, reply)}
    assert found == {parsed(served.authority), parsed(new)}
    await run(served.database, ca.distrust, served.authority, now=now())
    assert len(read_certs_only(served, await served.call("GET", f"{EST}/cacerts"))) == 1
    await run(served.database, ca.set_default, other, now=now())
    await run(served.database, ca.distrust, new, now=now())
    reply = await served.call("GET", f"{EST}/gatehouse/cacerts")
    assert (reply.status, reply.text) == (409, "the authority is distrusted and cannot be an anchor\n")


@pytest.mark.parametrize("label", ["", "/gatehouse"])
async def test_csrattrs(served: Served, label: str) -> None:
    reply = await served.call("GET", f"{EST}{label}/csrattrs")
    assert (reply.status, reply.body) == (204, b"")


@pytest.mark.parametrize("kind", ["ec", "rsa"])
@pytest.mark.parametrize("form", ["DER", "PEM"])
async def test_enrol_use_and_enrol_again(served: Served, client: Client, tmp_path: Path, kind: str, form: str) -> None:
    first = await client.enroll(kind=kind, form=form)
    held = await client.in_inventory()
    assert held.identity is not None
    assert (str(held.identity), held.profile, held.status) == ("enos/pk1/dk1", Profile.DEVICE, Status.VALID)
    assert first.not_valid_after_utc - now() > days(729)
    crl = (await served.call("GET", "/pki/gatehouse-1/crl.pem")).body
    code, said = verify(tmp_path, first, parsed(served.authority), purpose="sslclient", crl=crl)
    assert code == 0, said
    before = first
    for new_key in (True, False):
        body = client.request(new_key=new_key, kind=kind)
        successor = client.keep(await client.post(REENROLL, body, show=True))
        assert (successor.public_key() != before.public_key()) is new_key
        assert (successor.subject, successor.serial_number == first.serial_number) == (first.subject, False)
        assert (await stored(served.database, held)).superseded_by == (await client.in_inventory()).id
        assert (await stored(served.database, held)).last_seen_at is not None
        held, before = await client.in_inventory(), successor


async def test_with_curl(served: Served, client: Client) -> None:
    curl = shutil.which("curl")
    if curl is None:
        pytest.skip("there is no curl here")

    async def fetch(*arguments: str | Path) -> Reply:
        command = [curl, "-sS", "--cacert", served.anchor, *arguments]
        done = await asyncio.to_thread(subprocess.run, command, capture_output=True, timeout=30, check=True)
        return Reply(200, done.stdout, {"Content-Type": "application/pkcs7-mime; smime-type=certs-only",
                                        "Content-Transfer-Encoding": "base64"})  # fmt: skip

    body = served.directory / "request"
    body.write_bytes(client.request())
    post = ["-H", "Content-Type: application/pkcs10", "--data-binary", f"@{body}"]
    first = client.keep(await fetch(*post, "--user", "dk1&pk1:ds1", served.secure + ENROLL))
    shown: list[str | Path] = ["--cert", client.certificate, "--key", client.own_key]
    second = client.keep(await fetch(*post, *shown, served.secure + REENROLL))
    assert second.public_key() == first.public_key()
    assert second.serial_number != first.serial_number


async def test_at_the_door_of_the_whole_service(service: Running, tmp_path: Path) -> None:
    """Its own TLS, its own addresses."""
    await load_rows(service, PRODUCT, DEVICE)
    authority = await run(service.database, ca.default)
    async with aiohttp.ClientSession() as session:
        whole = Served(service.database, authority, service.http, service.https, tmp_path, session)
        client = Client(whole)
        issued = await client.enroll()
        client.keep(await client.post(REENROLL, client.request(), show=True))
        points = issued.extensions.get_extension_for_class(x509.CRLDistributionPoints).value
        assert points[0].full_name is not None
        assert points[0].full_name[0].value == f"{whole.base}/pki/gatehouse-1/crl.der"
        crl = await whole.call("GET", points[0].full_name[0].value)
    code, said = verify(
        tmp_path, issued, parsed(authority), crl=x509.load_der_x509_crl(crl.body).public_bytes(Encoding.PEM)
    )
    assert code == 0, said


async def test_a_device_without_its_old_certificate_re_enrols_by_its_secret(served: Served, client: Client) -> None:
    await client.enroll()
    old = await client.in_inventory()
    client.keep(await client.post(REENROLL, client.request(), auth=DK1))
    assert (await stored(served.database, old)).superseded_by == (await client.in_inventory()).id
    assert (await stored(served.database, old)).last_seen_at is None, "nobody has shown it"


async def test_the_asset_id_is_a_name_too(served: Served, client: Client) -> None:
    assert pki.first_attribute((await client.enroll(subject="/CN=asset1")).subject, "CN") == "asset1"


async def test_a_certificate_enrols_for_another_one(served: Served, client: Client) -> None:
    await client.enroll()
    first = await client.in_inventory()
    client.keep(await client.post(ENROLL, client.request(new_key=False, subject="/CN=asset1"), show=True))
    assert (await client.in_inventory()).identity == first.identity
    assert (await stored(served.database, first)).superseded_by is None


async def test_a_label_names_the_authority(served: Served, client: Client) -> None:
    other = await run(served.database, ca.create, "other", pki.new_key(), now=now())
    issued = await client.enroll(f"{EST}/other/simpleenroll")
    assert issued.issuer == parsed(other).subject
    text = openssl("x509", "-in", client.certificate, "-noout", "-text")
    for url in ("/pki/other-1/crl.der", "/pki/other-1/ocsp", "/pki/other-1/ca.der"):
        assert served.base + url in text


async def test_after_a_rotation_the_new_generation_issues(served: Served, client: Client) -> None:
    await client.enroll()
    new = await run(served.database, ca.rotate, served.authority, pki.new_key(), now=now())
    issued = client.keep(await client.post(REENROLL, client.request(new_key=False), show=True))
    assert issued.issuer == parsed(new).subject


async def test_alternative_names_are_not_granted(served: Served, client: Client) -> None:
    openssl("genpkey", "-algorithm", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", client.key)
    csr = served.directory / "san.csr"
    openssl(
        "req", "-new", "-key", client.key, "-subj", "/CN=dk1", "-addext", "subjectAltName=DNS:bank.example", "-out", csr
    )
    issued = client.keep(await client.post(ENROLL, csr.read_bytes(), auth=DK1))
    assert b"bank.example" not in issued.public_bytes(Encoding.DER)
    again = await client.post(REENROLL, csr.read_bytes(), auth=DK1)
    assert again.status == 200, "the same key: a renewal"


# --- who may not ---


async def refused(client: Client, path: str, status: int, words: str, body: bytes = b"", **more: Any) -> None:
    before = await count(client.served)
    reply = await client.post(path, body or client.request(), **more)
    assert (reply.status, reply.text) == (status, words)
    assert reply.headers["Content-Type"].startswith("text/plain")
    assert ("WWW-Authenticate" in reply.headers) == (status == 401)
    assert await count(client.served) == before


async def count(served: Served) -> int:
    async with served.database.read() as tx:
        found: int = await tx.db.fetchval("SELECT count(*) FROM certificate")
        return found


@pytest.mark.parametrize("path", [ENROLL, REENROLL, f"{EST}/gatehouse/simpleenroll"])
async def test_never_without_tls(served: Served, client: Client, path: str) -> None:
    for more in ({}, {"X-Forwarded-Proto": "https"}):
        headers = PKCS10 | {"Authorization": DK1} | more
        reply = await served.call("POST", path, data=client.request(), headers=headers)
        assert (reply.status, reply.text) == (403, "certificates are issued over HTTPS alone (RFC 7030, 3.3)\n")
    assert await count(served) == 1, "the server's own"


@pytest.mark.parametrize("path", [ENROLL, REENROLL])
async def test_a_wrong_secret_and_no_such_device_are_one_answer(database: Database, tmp_path: Path, path: str) -> None:
    await load(database, PRODUCT, DEVICE, DEVICE | {"deviceKey": "dk2", "deviceSecret": "ds2"})
    guesses = [
     ("dk1&pk1", "wrong"), ("dk1&pk1", ""), ("nobody&pk1", "ds1"), ("dk1&nobody", "ds1"), ("dk2&pk1", "ds1"),
     ("dk1", "ds1"), ("", ""), ("&", "x"), ("dk1&pk1", "ps1"), ("dk\x00&pk1", "x"), ("dk1&pk1", "ds1 "),
     ("geräte&pk1", "schlüssel"),
    ]  # fmt: skip
    headers = ["", "Basic", "Basic !!!", "Bearer x", "Basic " + "A" * 4_000, "Digest a=b"]
    async with pki_site(database, tmp_path, refusals=0) as site:
        client = Client(site)
        body = client.request()
        for header in (*headers, *(basic(*guess) for guess in guesses)):
            await refused(client, path, *NOT_PROVEN, body=body, headers=PKCS10 | {"Authorization": header})
        client.keep(await client.post(ENROLL, body, auth=DK1))


async def test_nothing_shown(client: Client) -> None:
    await refused(client, ENROLL, *NOT_PROVEN)
    await refused(client, REENROLL, *NOT_PROVEN)


async def test_guessing_is_blocked(client: Client) -> None:
    wrong = basic("dk1&pk1", "guess")
    for _ in range(4):
        await refused(client, ENROLL, *NOT_PROVEN, auth=wrong)
    for auth in (wrong, DK1):
        await refused(client, ENROLL, 429, "too many refusals: wait some minutes\n", auth=auth)
    other = Client(client.served, "dk2")
    other.keep(await other.post(ENROLL, other.request(), auth=basic("dk2&pk1", "ds2")))


async def test_disabled(served: Served, client: Client) -> None:
    await client.enroll()
    device = await run(served.database, registry.device, "enos", "pk1", "dk1")
    await run(served.database, registry.disable, device)
    await refused(client, ENROLL, 403, "the device is disabled\n", auth=DK1)
    await refused(client, REENROLL, 403, "the device is disabled\n", body=client.request(new_key=False), show=True)
    await refused(client, ENROLL, *NOT_PROVEN, auth=basic("dk1&pk1", "wrong"))


@pytest.mark.parametrize("path", [ENROLL, REENROLL])
async def test_certificates_that_are_no_longer_good(served: Served, client: Client, path: str) -> None:
    await client.enroll()
    own, body = await client.in_inventory(), client.request(new_key=False)
    said = "the certificate that was shown is {}\n".format
    await run(served.database, inventory.hold, own, now=now())
    await refused(client, path, 403, said("on hold"), body=body, show=True)
    await run(served.database, inventory.revoke, own, now=now(), reason=Revocation.KEY_COMPROMISE)
    await refused(client, path, 403, said("revoked"), body=body, show=True)
    async with served.database.begin() as tx:
        await tx.db.execute("UPDATE certificate SET status = 'valid', reason = NULL, revoked_at = NULL")
        await tx.db.execute("UPDATE certificate SET not_after = now() - interval '1 s' WHERE id = $1", own.id)
    await refused(client, path, 403, said("expired"), body=body, show=True)
    async with served.database.begin() as tx:
        await tx.db.execute(
            "UPDATE certificate SET not_before = now() + interval '1 d', not_after = now() + interval '2 d'"
        )
    await refused(client, path, 403, said("not yet valid"), body=body, show=True)
    async with served.database.begin() as tx:
        await tx.db.execute("UPDATE certificate SET not_before = now() - interval '1 d'")
        await tx.db.execute("UPDATE authority SET is_default = false")
    await run(served.database, ca.distrust, served.authority, now=now())
    await refused(client, path, 403, said("of an authority that is not trusted"), body=body, show=True)


async def test_certificates_that_were_never_a_device_s(served: Served, client: Client) -> None:
    said = "the certificate that was shown is not a device's\n"
    key = pki.new_key()
    client.own_key.write_text(pki.write_key(key))
    leaf = await issue(served.database, served.authority, now=now(), request=request_of("dk1", key))
    client.certificate.write_text(pki.write_pem(leaf.der))
    await refused(client, ENROLL, 403, said, show=True)
    async with served.database.begin() as tx:
        await tx.db.execute("DELETE FROM certificate WHERE id = $1", leaf.id)
    await refused(client, ENROLL, *NOT_PROVEN, show=True)


async def test_the_device_was_reset(served: Served, client: Client) -> None:
    await client.enroll()
    device = await run(served.database, registry.device, "enos", "pk1", "dk1")
    async with served.database.begin() as tx:
        await devices.reset(tx, device)
    words = "the device has no product yet\n"
    await refused(client, REENROLL, 403, words, body=client.request(new_key=False), show=True)
    await refused(client, ENROLL, *NOT_PROVEN, auth=DK1)


async def test_the_device_was_deleted(served: Served, client: Client) -> None:
    await client.enroll()
    device = await run(served.database, registry.device, "enos", "pk1", "dk1")
    await run(served.database, registry.delete_device, device)
    body = client.request(new_key=False)
    await refused(client, REENROLL, 403, "the certificate that was shown is revoked\n", body=body, show=True)
    await refused(client, ENROLL, *NOT_PROVEN, auth=DK1)


async def test_a_stranger_s_certificate_ends_in_the_handshake(served: Served, client: Client) -> None:
    own = made("dk1", made("stranger"), ca=False)
    client.certificate.write_bytes(own.pem)
    client.own_key.write_text(pki.write_key(own.key))
    with pytest.raises(aiohttp.ClientError):
        await client.post(ENROLL, client.request(), show=True)
    assert (await served.call("GET", served.secure + f"{EST}/cacerts")).status == 200


# --- what may not be asked for ---


async def test_another_name(client: Client) -> None:
    for subject in ("/CN=dk2", "/O=dk1", "/CN=dk1x", "/CN=DK1", "/CN=pk1", "/O=x/CN= "):
        reply = await client.post(ENROLL, client.request(subject), auth=DK1)
        assert (reply.status, reply.text[:13]) == (400, "csr must have"), subject
    assert await count(client.served) == 1


async def test_re_enrolment_keeps_the_subject(client: Client) -> None:
    await client.enroll()
    words = "csr must have the subject of the certificate that it replaces\n"
    for subject in ("/CN=dk1", "/CN=dk2", "/CN=dk1/O=Example"):
        await refused(client, REENROLL, 400, words, body=client.request(subject, new_key=False), show=True)
    await refused(client, REENROLL, 400, words, body=client.request("/CN=dk1"), show=True)


async def test_nothing_to_re_enrol(served: Served, client: Client) -> None:
    words = "csr has a subject that no certificate of the device has: enrol it\n"
    await refused(client, REENROLL, 400, words, auth=DK1)
    await client.enroll()
    await refused(client, REENROLL, 400, words, body=client.request("/CN=asset1"), auth=DK1)
    await run(served.database, inventory.revoke, await client.in_inventory(), now=now())
    await refused(client, REENROLL, 400, words, auth=DK1)


async def test_garbage_for_a_request(client: Client, lines: Lines) -> None:
    bodies = (b"", b"x", b"\x00" * 100, b"-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----",
             base64.b64encode(b"\x30\x82\x00\x01"), b"\xff\xfe", "ü".encode())  # fmt: skip
    for body in bodies:
        reply = await client.post(ENROLL, body, auth=DK1)
        assert (reply.status, reply.text[:4]) == (400, "csr "), body
    found = [line["log_level"] for line in lines if line["event"] == "http.est_simpleenroll"]
    assert found == ["info"] * len(bodies)


async def test_a_weak_or_foreign_key(client: Client) -> None:
    for more, words in [
        (["-algorithm", "rsa", "-pkeyopt", "rsa_keygen_bits:1024"], "has an RSA key of 1024 bits"),
        (["-algorithm", "ec", "-pkeyopt", "ec_paramgen_curve:P-521"], "has a key on secp521r1"),
        (["-algorithm", "ed25519"], "must have an EC"),
    ]:
        openssl("genpkey", *more, "-out", client.key)
        reply = await client.post(ENROLL, client.request(new_key=False), auth=DK1)
        assert (reply.status, words in reply.text) == (400, True), reply.text


async def test_too_large(client: Client) -> None:
    await refused(client, ENROLL, 413, "the body is larger than 16384 bytes\n", body=b"A" * 16_385, auth=DK1)


async def test_another_media_type(client: Client) -> None:
    body = client.request()
    for kind in ("", "application/json", "application/pkcs7-mime", "application/x-www-form-urlencoded"):
        reply = await client.post(ENROLL, body, auth=DK1, headers={"Content-Type": kind} if kind else {})
        assert (reply.status, "application/pkcs10" in reply.text) == (415, True), kind


async def test_labels(served: Served, client: Client) -> None:
    words = "there is no such authority here\n"
    await refused(client, f"{EST}/nobody/simpleenroll", 404, words, auth=DK1)
    assert (await served.call("GET", f"{EST}/nobody/cacerts")).text == words
    assert (await served.call("GET", f"{EST}/No_body/cacerts")).status == 404
    await run(served.database, ca.trust, "theirs", made("theirs").certificate)
    words = "the authority is without a key and cannot issue\n"
    await refused(client, f"{EST}/theirs/simpleenroll", 409, words, auth=DK1)
    assert (await served.call("GET", f"{EST}/theirs/cacerts")).status == 200


async def test_what_is_not_served(served: Served) -> None:
    for name in ("fullcmc", "serverkeygen", "simpleenroll/x"):
        assert (await served.call("POST", f"{served.secure}{EST}/{name}", data=b"")).status == 404, name


async def test_the_inventory_is_not_filled(served: Served, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(enrol_certificate, "MOST_LIVE", 2)
    for _ in range(2):
        await client.enroll()
    words = "the device has 2 valid certificates: some must be revoked first\n"
    await refused(client, ENROLL, 409, words, auth=DK1)
    await refused(client, REENROLL, 409, words, body=client.request(new_key=False), show=True)
    await run(served.database, inventory.revoke, await client.in_inventory(), now=now())
    await client.enroll()


async def test_the_database_is_away(served: Served, client: Client) -> None:
    await served.database.pool.close()
    body = client.request()
    reply = await client.post(ENROLL, body, auth=DK1)
    assert (reply.status, reply.text) == (503, "not available at this moment: try again\n")


async def test_the_log_names_the_device_and_no_secret(client: Client, lines: Lines) -> None:
    await client.enroll()
    await client.post(ENROLL, b"x", auth=basic("dk1&pk1", "not-the-secret"))
    found = [line for line in lines if line["event"] == "http.est_simpleenroll"]
    assert [line["outcome"] for line in found] == ["accepted", "refused"]
    assert {(line["product"], line["device"]) for line in found} == {("pk1", "dk1")}
    assert found[0]["certificate"] == (await client.in_inventory()).serial
    text = json.dumps(lines, default=str)
    assert "ds1" not in text
    assert "not-the-secret" not in text
