"""provisioning/protocols/enos/certificates.py: the X.509 service, as applications use it."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from unittest.mock import Mock
from uuid import UUID

import pytest
from aiohttp.test_utils import make_mocked_request

from provisioning.core import ca, certify, inventory, pki, registry
from provisioning.model.certificate import Certificate, Revocation, Status
from provisioning.model.refusal import Reason
from provisioning.protocols.enos import certificates as service
from provisioning.store import certificates, devices
from provisioning.store.database import Database
from tests.certificates import parsed, read_company, run
from tests.devices import DEVICE, PRODUCT
from tests.openssl import made, openssl, outcome, verify
from tests.pki_site import Reply, Served, load, pki_site
from tests.provisioning.protocols.conftest import Lines

PATH = "/connect-service/v2.0/certificates"
ROWS = (
    PRODUCT,
    DEVICE | {"assetId": "asset1"},
    DEVICE | {"deviceKey": "dk2", "deviceSecret": "ds2", "assetId": "asset2"},
    DEVICE | {"deviceKey": "dk3", "deviceSecret": "ds3", "assetId": "twin"},
    DEVICE | {"deviceKey": "dk4", "deviceSecret": "ds4", "assetId": "twin"},
)
KEYS = {"orgId": "o1", "productKey": "pk1", "deviceKey": "dk1"}
ASSET = {"orgId": "o1", "assetId": "asset1"}


def now() -> datetime:
    return datetime.now(UTC).replace(microsecond=0)


@dataclass
class Client:
    """An application, and the keys of its devices."""

    served: Served
    headers: dict[str, str] = field(default_factory=dict)

    def csr(self, cn: str = "asset1", *, kind: str = "ec", key: str = "", **attributes: str) -> str:
        """By `openssl req`. `key`: the name of one that was made before; `attributes` replace those of the subject."""
        path = self.served.directory / f"{key or 'device'}.key"
        if not (key and path.exists()):
            curve = ["-pkeyopt", "ec_paramgen_curve:P-256"] if kind == "ec" else ["-pkeyopt", "rsa_keygen_bits:2048"]
            openssl("genpkey", "-algorithm", kind, *curve, "-out", path)
        wanted = {"C": "DE", "ST": "Bayern", "L": "Hof", "O": "Example", "OU": "Pumps", "CN": cn} | attributes
        subject = "".join(f"/{name}={value}" for name, value in wanted.items() if value)
        return openssl("req", "-new", "-utf8", "-key", path, "-subj", subject)

    async def call(self, action: str, body: Any, path: str = PATH, **query: Any) -> Reply:
        query = {"action": action} | (query or KEYS)
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        headers = {"Content-Type": "application/json;charset=UTF-8"} | self.headers
        return await self.served.call("POST", path, params=query, data=data, headers=headers)

    async def apply(self, csr: str = "", **more: Any) -> dict[str, Any]:
        csr = csr or self.csr()
        return data_of(await self.call("apply", {"csr": csr, "issueAuthority": "ECC"} | more))

    async def find(self, data: dict[str, Any]) -> Certificate:
        (found,) = await run(self.served.database, certificates.by_serial, data["certSN"])
        assert isinstance(found, Certificate)
        return found


def data_of(reply: Reply) -> dict[str, Any]:
    assert (reply.status, reply.headers["Content-Type"].split(";")[0]) == (200, "application/json"), reply.text
    body = reply.json
    assert set(body) == {"code", "msg", "requestId", "data"}
    assert (body["code"], body["msg"]) == (0, "OK")
    assert str(UUID(body["requestId"])) == body["requestId"]
    found: dict[str, Any] = body["data"]
    return found


def error_of(reply: Reply) -> tuple[int, int, str]:
    assert reply.headers["Content-Type"].split(";")[0] == "application/json"
    body = reply.json
    assert set(body) == {"code", "msg", "requestId", "data"}
    assert body["data"] is None
    assert str(UUID(body["requestId"])) == body["requestId"]
    return reply.status, body["code"], body["msg"]


@pytest.fixture
async def served(database: Database, tmp_path: Path) -> AsyncIterator[Served]:
    await load(database, *ROWS)
    async with pki_site(database, tmp_path, max_leaf_days=1_000) as site:
        yield site


@pytest.fixture
def client(served: Served) -> Client:
    return Client(served)


# --- apply ---


@pytest.mark.parametrize("path", [PATH, PATH.replace("v2.0", "v2.1")])
@pytest.mark.parametrize(
    ("named", "kind", "stated"),
    [(KEYS, "ec", {"issueAuthority": "ECC"}), (ASSET, "ec", {"issueAuthority": "ecc"}),
     (KEYS | ASSET, "rsa", {"issueAuthority": "RSA"}), ({"assetId": "asset1"}, "rsa", {"issueAuthority": "rsa"}),
     (KEYS, "rsa", {})],
    ids=["keys", "asset", "both", "no org", "default"],
)  # fmt: skip
async def test_apply(client: Client, path: str, named: dict[str, str], kind: str, stated: dict[str, str]) -> None:
    served, directory = client.served, client.served.directory
    body = {"csr": client.csr(kind=kind, emailAddress="a@example.org")} | stated
    data = data_of(await client.call("apply", body, path, **named))
    assert set(data) == {"cert", "caCert", "certChainURL", "certSN", "issueAuthority"}
    assert data["issueAuthority"] == {"rsa": "RSA", "ec": "ECC"}[kind]
    leaf = pki.read_certificate(data["cert"])
    assert data["certSN"] == f"{leaf.serial_number:x}"
    assert leaf.not_valid_after_utc - now() > timedelta(days=729.9)
    assert pki.first_attribute(leaf.subject, "OU") == "Pumps"
    (directory / "key.pub").write_text(openssl("pkey", "-in", directory / "device.key", "-pubout"))
    assert openssl("x509", "-noout", "-pubkey", data=data["cert"].encode()) == (directory / "key.pub").read_text()
    crl = (await served.call("GET", "/pki/gatehouse-1/crl.pem")).body
    code, said = verify(directory, leaf, pki.read_certificate(data["caCert"]), purpose="sslclient", crl=crl)
    assert code == 0, said
    assert (await served.call("GET", data["certChainURL"])).text == data["caCert"]
    held = await client.find(data)
    assert str(held.identity) == "enos/pk1/dk1"


async def test_the_validity_may_be_stated(client: Client) -> None:
    for number, days in enumerate((1, 1_000)):
        leaf = pki.read_certificate((await client.apply(client.csr(f"cn{number}"), validDay=days))["cert"])
        assert abs(leaf.not_valid_after_utc - now() - timedelta(days=days)) < timedelta(minutes=1)


async def test_the_line_breaks_of_a_request_may_be_lost(client: Client) -> None:
    csr = client.csr()
    assert await client.apply(csr.replace("\n", "\\n"))
    assert await client.apply(client.csr("other").replace("\n", ""))


async def test_a_company_s_authority_sends_what_stands_between(client: Client) -> None:
    root = made("root")
    own = made("own", root, path_length=0)
    added = await run(client.served.database, ca.import_, "own", read_company(own, root))
    await run(client.served.database, ca.set_default, added, now=now())
    data = await client.apply()
    assert [pki.first_attribute(each.subject, "CN") for each in pki.read_certificates(data["cert"])] == [
        "asset1",
        "own",
    ]
    assert data["caCert"].encode() == own.pem + root.pem


async def test_a_common_name_is_given_once(client: Client) -> None:
    taken = (409, 99400, "Invalid cert request!message: the common name is taken")
    data = await client.apply()
    body = {"csr": client.csr(), "issueAuthority": "ECC"}
    for key in ("dk1", "dk2"):
        assert error_of(await client.call("apply", body, productKey="pk1", deviceKey=key)) == taken
    await run(client.served.database, inventory.revoke, await client.find(data), now=now())
    assert await client.apply()


async def test_one_of_many_that_race_for_a_name_has_it(client: Client) -> None:
    body = {"csr": client.csr(), "issueAuthority": "ECC"}
    replies = await asyncio.gather(*(client.call("apply", body) for _ in range(6)))
    assert sorted(reply.status for reply in replies) == [200, 409, 409, 409, 409, 409]


# --- renew ---


@pytest.mark.parametrize("name", ["certSn", "certSN"])
async def test_renew_for_the_same_key(client: Client, name: str) -> None:
    data = await client.apply()
    new = data_of(await client.call("renew", {name: data["certSN"], "validDay": 10}, **ASSET))
    old_leaf, leaf = pki.read_certificate(data["cert"]), pki.read_certificate(new["cert"])
    assert (leaf.subject, leaf.public_key()) == (old_leaf.subject, old_leaf.public_key())
    assert new["certSN"] != data["certSN"]
    assert leaf.not_valid_after_utc - now() <= timedelta(days=10)
    old = await client.find(data)
    assert (old.superseded_by, old.status) == ((await client.find(new)).id, Status.VALID)


async def test_renew_with_a_new_key(client: Client) -> None:
    data = await client.apply()
    body = {"csr": client.csr(), "certSn": data["certSN"].upper(), "issueAuthority": "ECC"}
    new = data_of(await client.call("renew", body))
    assert pki.read_certificate(new["cert"]).public_key() != pki.read_certificate(data["cert"]).public_key()
    rsa = data_of(await client.call("renew", {"csr": client.csr(kind="rsa"), "certSn": new["certSN"]}))
    assert rsa["issueAuthority"] == "RSA"


async def test_renew_with_the_same_request(client: Client) -> None:
    csr = client.csr()
    data = await client.apply(csr)
    new = data_of(await client.call("renew", {"csr": csr, "certSn": data["certSN"]}))
    assert pki.read_certificate(new["cert"]).public_key() == pki.read_certificate(data["cert"]).public_key()


async def test_a_serial_number_as_a_number(client: Client) -> None:
    data = await client.apply()
    assert data_of(await client.call("renew", {"certSn": int(data["certSN"], 16)}))


async def test_what_may_not_be_renewed(client: Client) -> None:
    data = await client.apply()
    renew = {"certSn": data["certSN"]}
    missing = (404, 35404, "Certificate not found")
    assert error_of(await client.call("renew", renew, productKey="pk1", deviceKey="dk2")) == missing
    assert error_of(await client.call("renew", {"certSn": "1f"})) == missing
    subject = "Invalid Argument csr:csr must have the subject of the certificate that it replaces"
    for csr in (client.csr("other"), client.csr(O="Other")):
        assert error_of(await client.call("renew", renew | {"csr": csr})) == (400, 99400, subject)
    reply = await client.call("renew", renew | {"issueAuthority": "RSA"})
    assert error_of(reply)[2].endswith("issueAuthority is RSA (RSA unless stated), and the key is ECC")
    await run(client.served.database, inventory.hold, await client.find(data), now=now())
    words = "Invalid cert request!message: the certificate is {} and cannot renew"
    assert error_of(await client.call("renew", renew)) == (409, 99400, words.format("held"))
    await run(client.served.database, inventory.revoke, await client.find(data), now=now())
    assert error_of(await client.call("renew", renew)) == (409, 99400, words.format("revoked"))


async def test_a_certificate_by_others_is_not_ours_to_renew(client: Client) -> None:
    theirs = made("theirs")
    leaf = made("asset1", theirs, ca=False)
    database = client.served.database
    authority = await run(database, ca.trust, "theirs", theirs.certificate)
    device = await run(database, registry.device, "enos", "pk1", "dk1")
    held = await run(database, certify.adopt, authority, leaf.certificate, now=now(), device=device)
    for action in ("renew", "revoke"):
        reply = await client.call(action, {"certSn": held.serial})
        assert error_of(reply) == (404, 35404, "Certificate not found")


# --- revoke ---


@pytest.mark.parametrize(
    ("reason", "expected"),
    [(None, Revocation.UNSPECIFIED), (0, Revocation.UNSPECIFIED), (1, Revocation.KEY_COMPROMISE),
     ("4", Revocation.SUPERSEDED), (9, Revocation.PRIVILEGE_WITHDRAWN)],
)  # fmt: skip
async def test_revoke(client: Client, tmp_path: Path, reason: object, expected: Revocation) -> None:
    data = await client.apply()
    body = {"certSn": data["certSN"]} | ({} if reason is None else {"reason": reason})
    assert data_of(await client.call("revoke", body)) == {"certSN": data["certSN"]}
    held = await client.find(data)
    assert (held.status, held.reason) == (Status.REVOKED, expected)
    served = client.served
    crl = (await served.call("GET", "/pki/gatehouse-1/crl.pem")).body
    code, said = verify(tmp_path, parsed(held), parsed(served.authority), crl=crl)
    assert (code != 0, "certificate revoked" in said) == (True, True)
    words = "Invalid cert request!message: the certificate is revoked and cannot revoke"
    assert error_of(await client.call("revoke", body)) == (409, 99400, words)


async def test_reason_six_is_a_hold(client: Client) -> None:
    data = await client.apply()
    assert data_of(await client.call("revoke", {"certSn": data["certSN"], "reason": 6}))
    assert (await client.find(data)).status is Status.HELD
    assert data_of(await client.call("revoke", {"certSn": data["certSN"]}))


async def test_nobody_revokes_another_device_s(client: Client) -> None:
    data = await client.apply()
    reply = await client.call("revoke", {"certSn": data["certSN"]}, productKey="pk1", deviceKey="dk2")
    assert error_of(reply) == (404, 35404, "Certificate not found")
    server = (await stored_servers(client.served))[0]
    assert error_of(await client.call("revoke", {"certSn": server})) == (404, 35404, "Certificate not found")
    assert (await client.find(data)).status is Status.VALID


async def stored_servers(served: Served) -> list[str]:
    async with served.database.read() as tx:
        return [row["serial"] for row in await tx.db.fetch("SELECT serial FROM certificate WHERE device_id IS NULL")]


# --- refusals ---


async def test_which_device(client: Client) -> None:
    body = {"csr": client.csr(), "issueAuthority": "ECC"}
    missing = "assetId is missing, and so are productKey and deviceKey: say which device"
    form = "must be 1 to 64 of A-Z a-z 0-9 _ . -"
    twin = "assetId is that of several devices: state productKey and deviceKey"
    cases: list[tuple[dict[str, str], int, str]] = [
        ({"orgId": "o1"}, 400, f"Invalid Argument assetId:{missing}"),
        ({"productKey": "pk1"}, 400, "Invalid Argument deviceKey:deviceKey is missing"),
        ({"deviceKey": "dk1"}, 400, "Invalid Argument productKey:productKey is missing"),
        ({"productKey": "pk1", "deviceKey": "a/b"}, 400, f"Invalid Argument deviceKey:deviceKey {form}"),
        ({"assetId": "\x00"}, 400, f"Invalid Argument assetId:assetId {form}"),
        ({"assetId": "nobody"}, 404, "Device not found"),
        ({"productKey": "pk1", "deviceKey": "nobody"}, 404, "Device not found"),
        ({"productKey": "nobody", "deviceKey": "dk1"}, 404, "Device not found"),
        ({"assetId": "twin"}, 400, f"Invalid Argument assetId:{twin}"),
        (KEYS | {"assetId": "asset2"}, 400,
         "Invalid Argument assetId:assetId is not that of the device that productKey and deviceKey name"),
    ]  # fmt: skip
    for query, status, words in cases:
        reply = await client.call("apply", body, **query)
        assert error_of(reply) == (status, 35404 if status == 404 else 99400, words), query


async def test_a_device_that_was_reset(client: Client) -> None:
    device = await run(client.served.database, registry.device, "enos", "pk1", "dk1")
    async with client.served.database.begin() as tx:
        await devices.reset(tx, device)
    for query in (KEYS, ASSET):
        reply = await client.call("apply", {"csr": client.csr(), "issueAuthority": "ECC"}, **query)
        assert error_of(reply) == (403, 10000, "[] not allocated")


async def test_a_twin_is_named_by_both(client: Client) -> None:
    query = {"assetId": "twin", "productKey": "pk1", "deviceKey": "dk4"}
    data = data_of(await client.call("apply", {"csr": client.csr(), "issueAuthority": "ECC"}, **query))
    assert str((await client.find(data)).identity) == "enos/pk1/dk4"


async def test_other_actions_and_versions(client: Client) -> None:
    for action in ("", "list", "APPLY", "apply "):
        reply = await client.call(action, {})
        assert error_of(reply) == (400, 99400, "Invalid Argument action:action must be apply, renew or revoke")
    for version in ("v2.2", "v2", "v2x0", "2.0", "v2.0%0a"):
        assert (await client.call("apply", {}, PATH.replace("v2.0", version))).status == 404, version


async def test_no_json_object(client: Client, lines: Lines) -> None:
    bodies = (b"", b"{", b"[]", b'"x"', b"null", b"\xff", b'{"csr":"\\ud800"}')
    for body in bodies:
        reply = await client.call("apply", body)
        assert error_of(reply) == (400, 99400, "Invalid Argument body:body is missing"), body
    found = [(each["outcome"], each["log_level"]) for each in lines if each["event"] == "http.certificates"]
    assert found == [("refused", "info")] * len(bodies)


async def test_too_large_and_not_json(client: Client) -> None:
    assert error_of(await client.call("apply", b"x" * 40_000))[:2] == (413, 99400)
    client.headers["Content-Type"] = "text/plain"
    assert error_of(await client.call("apply", b"{}"))[:2] == (415, 99400)


async def test_the_subject(client: Client) -> None:
    for attributes, words in [
        *[({name: ""}, f"csr must have {name} in its subject") for name in ("C", "ST", "L", "O", "OU")],
        ({"CN": ""}, "csr must have CN in its subject"),
        ({"ST": "x" * 65}, "csr must have 1 to 64 characters in ST of its subject"),
        ({"L": "x" * 65}, "csr must have 1 to 64 characters in L of its subject"),
    ]:
        csr = client.csr(key="one", **attributes)
        reply = await client.call("apply", {"csr": csr, "issueAuthority": "ECC"})
        assert error_of(reply) == (400, 99400, f"Invalid Argument csr:{words}")
    assert await client.apply(client.csr("ü" * 32, ST="x" * 64, L="y" * 64, O="z" * 64, OU="w" * 64))


async def test_an_authority_that_may_not_issue(client: Client) -> None:
    async with client.served.database.begin() as tx:
        await tx.db.execute("UPDATE authority SET is_default = false")
    reply = await client.call("apply", {"csr": client.csr(), "issueAuthority": "ECC"})
    assert error_of(reply) == (404, 35404, "Authority not found")


async def test_the_database_is_away(client: Client) -> None:
    csr = client.csr()
    await client.served.database.pool.close()
    reply = await client.call("apply", {"csr": csr, "issueAuthority": "ECC"})
    assert error_of(reply) == (503, 99500, "Internal error")


async def test_always_200(database: Database, tmp_path: Path) -> None:
    await load(database, *ROWS)
    async with pki_site(database, tmp_path, always_200=True) as site:
        assert error_of(await Client(site).call("list", {}))[:2] == (200, 99400)


# --- access ---

REFUSED = (401, 35603, "Unauthorized to access the resource")
FOREIGN = (403, 35603, "Unauthorized to access the resource: set pki.access_token to serve more than this machine")


async def test_access_by_token(database: Database, tmp_path: Path) -> None:
    cases: list[tuple[dict[str, str], bool]] = [
        ({}, False),
        ({"Authorization": "Bearer t0k"}, True),
        ({"Authorization": "bearer  t0k"}, True),
        ({"apim-accesstoken": "t0k"}, True),
        ({"Authorization": "Basic eDp5", "apim-accesstoken": "t0k"}, True),
        ({"Authorization": "Bearer t0k", "X-Forwarded-For": "192.0.2.1", "Host": "pki.example"}, True),
        ({"Authorization": "Bearer"}, False),
        ({"Authorization": "t0k"}, False),
        ({"Authorization": "Bearer t0k0"}, False),
        ({"Authorization": "Bearer T0K"}, False),
        ({"apim-accesstoken": ""}, False),
        ({"apim-accesstoken": "tük"}, False),
    ]
    async with pki_site(database, tmp_path, access_token="t0k") as site:
        for headers, may in cases:
            reply = await Client(site, headers).call("list", {})
            assert error_of(reply)[:2] == (400, 99400) if may else error_of(reply) == REFUSED, headers
            assert ("WWW-Authenticate" in reply.headers) == (not may)


async def test_without_a_token_no_proxy_and_no_other_name(client: Client) -> None:
    for name, value in [
        ("Host", "pki.example"), ("X-Forwarded-For", "127.0.0.1"), ("Forwarded", "for=x"), ("Via", "1.1 x"),
        ("X-Real-IP", "127.0.0.1"),
    ]:  # fmt: skip
        client.headers = {name: value}
        assert error_of(await client.call("list", {})) == FOREIGN, name
    for host in ("localhost", "localhost:8080", "127.0.0.1", "[::1]:8080"):
        client.headers = {"Host": host}
        assert error_of(await client.call("list", {}))[:2] == (400, 99400), host


@pytest.mark.parametrize(
    ("address", "may"),
    [("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("::ffff:127.0.0.1", True), ("192.0.2.1", False),
     ("::ffff:192.0.2.1", False), ("fe80::1%eth0", False), ("10.0.0.1", False)],
)  # fmt: skip
def test_peers(address: str, *, may: bool) -> None:
    request = make_mocked_request("POST", PATH, headers={"Host": "localhost"}, protocol=Mock(peername=(address, 5)))
    found = outcome(service.check_access, request, None)
    assert found is None if may else found.reason is Reason.UNSUPPORTED


def test_a_peer_without_an_address() -> None:
    request = make_mocked_request("POST", PATH, headers={"Host": "localhost"}, protocol=Mock(peername=None))
    assert outcome(service.check_access, request, None).reason is Reason.UNSUPPORTED


async def test_the_token_is_in_no_line(database: Database, tmp_path: Path, lines: Lines) -> None:
    await load(database, *ROWS)
    async with pki_site(database, tmp_path, access_token="t0k-right") as site:
        await Client(site, {"apim-accesstoken": "t0k-wrong"}).call("list", {})
        await Client(site, {"apim-accesstoken": "t0k-right"}).call("list", {})
    assert "t0k" not in json.dumps(lines, default=str)
