"""provisioning/protocols/x509/http.py"""

import asyncio
import base64
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from pathlib import Path
from urllib.parse import quote

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp
from yarl import URL

from provisioning.core import ca, inventory
from provisioning.model.certificate import Certificate
from provisioning.model.refusal import Reason, Refusal
from provisioning.protocols.x509 import http
from provisioning.protocols.x509.wire import urls
from tests.certificates import issue, parsed, read_company, run
from tests.openssl import made, openssl, verify, write
from tests.pki_site import Reply, Served
from tests.provisioning.protocols.x509.conftest import Lines

pytestmark = pytest.mark.server

CA, CRL, OCSP = "/pki/gatehouse-1/ca", "/pki/gatehouse-1/crl", "/pki/gatehouse-1/ocsp"


def now() -> datetime:
    return datetime.now(UTC).replace(microsecond=0)


async def add_leaf(served: Served) -> Certificate:
    return await issue(served.database, served.authority, now=now(), urls=urls(served.base, served.authority))


def max_age(reply: Reply) -> int:
    found = [part for part in reply.headers["Cache-Control"].split(", ") if part.startswith("max-age=")]
    return int(found[0].removeprefix("max-age="))


# --- certificates of authorities ---


async def test_the_authority_in_der(served: Served) -> None:
    reply = await served.call("GET", f"{CA}.der")
    assert (reply.status, reply.headers["Content-Type"]) == (200, "application/pkix-cert")
    assert reply.body == served.authority.certificate
    assert max_age(reply) > 0
    assert (await served.call("HEAD", f"{CA}.der")).status == 200


async def test_the_authority_in_pem_with_those_above_it(served: Served, tmp_path: Path) -> None:
    root = made("root")
    own = made("own", root, path_length=0)
    await run(served.database, ca.import_, "own", read_company(own, root))
    reply = await served.call("GET", "/pki/own-1/ca.pem")
    assert (reply.status, reply.headers["Content-Type"]) == (200, "application/pem-certificate-chain")
    assert reply.body == own.pem + root.pem
    (tmp_path / "own.pem").write_bytes(reply.body)
    assert "CN = own" in openssl("x509", "-in", tmp_path / "own.pem", "-noout", "-subject")


async def test_no_such_authority(served: Served) -> None:
    for authority in ("nobody-1", "gatehouse-2", "gatehouse-999999999"):
        for file in ("ca.der", "ca.pem", "crl.der", "crl.pem"):
            reply = await served.call("GET", f"/pki/{authority}/{file}")
            assert (reply.status, reply.text) == (404, "there is no such authority here\n"), (authority, file)


async def test_no_such_path(served: Served) -> None:
    for path in (
     "gatehouse/ca.der", "gatehouse-0/ca.der", "gatehouse-1/ca.txt", "gatehouse-1/", "GATEHOUSE-1/ca.der",
     "gatehouse-1/ca.der%0a", "gatehouse-9999999999/crl.der", "gatehouse-%D9%A3/ca.der", "../pki/gatehouse-1/x",
    ):  # fmt: skip
        reply = await served.call("GET", f"/pki/{path}")
        assert (reply.status, "error" in reply.json) == (404, True), path


# --- CRL ---


async def test_openssl_takes_the_crl_and_refuses_the_revoked(served: Served, tmp_path: Path) -> None:
    leaf = await add_leaf(served)

    async def verdict() -> bool:
        reply = await served.call("GET", f"{CRL}.pem")
        assert (reply.status, reply.headers["Content-Type"]) == (200, "application/x-pem-file")
        code, said = verify(tmp_path, parsed(leaf), parsed(served.authority), crl=reply.body)
        assert code == 0 or "certificate revoked" in said
        return code == 0

    assert await verdict()
    await run(served.database, inventory.hold, leaf, now=now())
    assert not await verdict()
    await run(served.database, inventory.release, leaf, now=now())
    assert await verdict()
    await run(served.database, inventory.revoke, leaf, now=now())
    assert not await verdict()


async def test_the_crl_that_a_certificate_names(served: Served, tmp_path: Path) -> None:
    leaf = parsed(await add_leaf(served))
    points = leaf.extensions.get_extension_for_class(x509.CRLDistributionPoints).value
    names = points[0].full_name
    assert names is not None
    reply = await served.call("GET", names[0].value)
    assert (reply.status, reply.headers["Content-Type"]) == (200, "application/pkix-crl")
    (tmp_path / "crl.der").write_bytes(reply.body)
    said = openssl("crl", "-inform", "DER", "-in", tmp_path / "crl.der", "-CAfile", served.anchor, "-noout", "-text")
    assert "verify OK" in said
    assert "X509v3 CRL Number" in said
    crl = x509.load_der_x509_crl(reply.body)
    assert parsedate_to_datetime(reply.headers["Expires"]) == crl.next_update_utc
    assert parsedate_to_datetime(reply.headers["Last-Modified"]) == crl.last_update_utc
    assert 0 < max_age(reply) <= http.CRL_AGE
    assert crl.next_update_utc is not None
    assert timedelta(days=6.9) < crl.next_update_utc - now() <= timedelta(days=7)


async def test_a_crl_is_sent_once(served: Served) -> None:
    leaf = await add_leaf(served)
    first = await served.call("GET", f"{CRL}.der")
    known = {"If-None-Match": first.headers["ETag"]}
    again = await served.call("GET", f"{CRL}.der", headers=known)
    assert (again.status, again.body) == (304, b"")
    assert again.headers["ETag"] == first.headers["ETag"]
    assert (await served.call("GET", f"{CRL}.pem", headers=known)).status == 200
    assert (await served.call("GET", f"{CRL}.der", headers={"If-None-Match": "*"})).status == 304
    assert (await served.call("GET", f"{CRL}.der", headers={"If-None-Match": "garbage"})).body == first.body
    await run(served.database, inventory.revoke, leaf, now=now())
    changed = await served.call("GET", f"{CRL}.der", headers=known)
    assert (changed.status, len(list(x509.load_der_x509_crl(changed.body)))) == (200, 1)


async def test_requests_do_not_use_up_numbers(served: Served) -> None:
    bodies = {(await served.call("GET", f"{CRL}.der")).body for _ in range(5)}
    assert len(bodies) == 1
    async with served.database.read() as tx:
        assert await tx.db.fetchval("SELECT crl_number FROM authority WHERE id = $1", served.authority.id) == 1


async def test_an_authority_whose_key_is_elsewhere_has_no_crl_here(served: Served) -> None:
    theirs = made("theirs").certificate
    await run(served.database, ca.trust, "theirs", theirs)
    reply = await served.call("GET", "/pki/theirs-1/crl.der")
    assert (reply.status, reply.text) == (404, "the authority is without a key and cannot sign\n")
    reply = await served.call("GET", "/pki/theirs-1/ca.der")
    assert (reply.status, reply.body) == (200, theirs.public_bytes(Encoding.DER))


# --- OCSP ---


async def ask(served: Served, leaf: Certificate, directory: Path, *more: str) -> str:
    own, of = served.anchor, write(directory / "leaf.pem", parsed(leaf))
    uri = openssl("x509", "-in", of, "-noout", "-ocsp_uri").strip()
    assert uri == served.base + OCSP
    said = await asyncio.to_thread(
        openssl, "ocsp", *more, "-issuer", own, "-cert", of, "-CAfile", own, "-url", uri
    )  # fmt: skip
    assert "Response verify OK" in said
    assert "WARNING" not in said, said
    return said.split("leaf.pem: ")[1].split("\n")[0]


async def test_openssl_asks_the_responder(served: Served, tmp_path: Path) -> None:
    leaf = await add_leaf(served)
    assert await ask(served, leaf, tmp_path) == "good"
    assert await ask(served, leaf, tmp_path, "-sha256") == "good"
    await run(served.database, inventory.hold, leaf, now=now())
    assert await ask(served, leaf, tmp_path) == "revoked"
    await run(served.database, inventory.release, leaf, now=now())
    assert await ask(served, leaf, tmp_path) == "good"
    await run(served.database, inventory.revoke, leaf, now=now())
    assert await ask(served, leaf, tmp_path) == "revoked"


async def get_raw(served: Served, path: str) -> Reply:
    """The path is sent as it stands here."""
    async with served.session.get(URL(served.base + path, encoded=True)) as response:
        return Reply(response.status, await response.read(), response.headers)


def request_for(leaf: x509.Certificate, issuer: x509.Certificate) -> bytes:
    made_of = ocsp.OCSPRequestBuilder().add_certificate(leaf, issuer, hashes.SHA1())
    return made_of.build().public_bytes(Encoding.DER)


@pytest.mark.parametrize("safe", ["", "/+="], ids=["encoded", "as it is"])
async def test_a_get_may_be_cached_as_long_as_the_answer_is_good(served: Served, tmp_path: Path, safe: str) -> None:
    """RFC 5019, 5 and 6.2."""
    leaf = await add_leaf(served)
    asked = request_for(parsed(leaf), parsed(served.authority))
    path = quote(base64.b64encode(asked).decode(), safe=safe)
    reply = await get_raw(served, f"{OCSP}/{path}")
    assert (reply.status, reply.headers["Content-Type"]) == (200, "application/ocsp-response")
    (tmp_path / "answer.der").write_bytes(reply.body)
    of = write(tmp_path / "leaf.pem", parsed(leaf))
    said = openssl(
        "ocsp", "-issuer", served.anchor, "-cert", of, "-no_nonce", "-respin", tmp_path / "answer.der",
        "-CAfile", served.anchor,
    )  # fmt: skip
    assert "Response verify OK" in said
    assert "leaf.pem: good" in said
    answer = ocsp.load_der_ocsp_response(reply.body)
    assert answer.next_update_utc is not None
    assert parsedate_to_datetime(reply.headers["Expires"]) == answer.next_update_utc
    assert parsedate_to_datetime(reply.headers["Last-Modified"]) == answer.this_update_utc
    assert abs((answer.next_update_utc - now()).total_seconds() - max_age(reply)) <= 2
    directives = reply.headers["Cache-Control"].split(", ")
    assert directives[1:] == ["public", "no-transform", "must-revalidate"]
    assert reply.headers["ETag"]


def status_of(reply: Reply) -> str:
    assert (reply.status, reply.headers["Content-Type"]) == (200, "application/ocsp-response")
    assert reply.headers["Cache-Control"] == "no-store"
    return ocsp.load_der_ocsp_response(reply.body).response_status.name


async def test_what_is_no_request(served: Served, lines: Lines) -> None:
    bodies = (b"", b"\x30", b"garbage", b"\x30\x03\x02\x01\x00", b"x" * 2_049, b"x" * 100_000)
    for body in bodies:
        assert status_of(await served.call("POST", OCSP, data=body)) == "MALFORMED_REQUEST", body[:20]
    paths = ("/", "/AAAA", "/!!!", "/%00", "/%FF%FE", "/a/b/c", "/" + "A" * 6_000, "/%2e%2e/x")
    for path in paths:
        assert status_of(await get_raw(served, f"{OCSP}{path}")) == "MALFORMED_REQUEST", path[:20]
    found = [(line["outcome"], line["log_level"]) for line in lines if line["event"] == "http.ocsp"]
    assert found == [("refused", "info")] * (len(bodies) + len(paths))


async def test_a_stranger_s_certificate(served: Served) -> None:
    root = made("stranger")
    asked = request_for(made("leaf", root, ca=False).certificate, root.certificate)
    assert status_of(await served.call("POST", OCSP, data=asked)) == "UNAUTHORIZED"


async def test_a_compressed_request_is_refused_unread(served: Served) -> None:
    reply = await served.call("POST", OCSP, data=b"x", headers={"Content-Encoding": "gzip"})
    assert status_of(reply) == "MALFORMED_REQUEST"


async def test_the_database_is_away(served: Served) -> None:
    leaf = await add_leaf(served)
    asked = request_for(parsed(leaf), parsed(served.authority))
    await served.database.pool.close()
    assert status_of(await served.call("POST", OCSP, data=asked)) == "TRY_LATER"
    for path in (f"{CRL}.der", f"{CA}.der"):
        reply = await served.call("GET", path)
        assert (reply.status, reply.text) == (503, "not available at this moment: try again\n")


@pytest.mark.parametrize("reason", Reason)
def test_each_refusal_has_an_answer(reason: Reason) -> None:
    reply = http.refuse_ocsp(Refusal(reason))
    assert isinstance(reply.body, bytes)
    assert ocsp.load_der_ocsp_response(reply.body).response_status is not ocsp.OCSPResponseStatus.SUCCESSFUL
    assert http.refuse(Refusal(reason)).status >= 400
