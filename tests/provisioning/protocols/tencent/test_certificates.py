"""Registration in products whose devices log in with certificates."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from typing import Any

import aiohttp
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key

from provisioning.app import Running
from provisioning.core import ca, pki, registry, signing
from provisioning.core.signing import NOWHERE, Issuer
from provisioning.model.certificate import Certificate, Profile, Revocation, Status
from provisioning.model.refusal import Refusal
from provisioning.model.registry import Device
from provisioning.store import authorities, certificates, devices, logins, registrations
from tests.certificates import NOW, days
from tests.conftest import Serve, load_rows
from tests.registrants import NO_LIMITS, PRODUCT, Registrant, Reply

pytestmark = pytest.mark.server

PRODUCT_ID = "CERTIFIED1"
CERTIFIED = PRODUCT | {"productId": PRODUCT_ID, "encryptionType": 1, "caName": "factory"}
FACTORY_KEY = pki.new_key()
FACTORY = Issuer(
    signing.make_authority(pki.make_subject("Factory CA"), FACTORY_KEY, now=NOW - days(99), years=9, serial=77),
    FACTORY_KEY,
)


def brought(cn: str = "from the line", *, by: Issuer = FACTORY, at: timedelta = timedelta(0), valid: int = 30) -> str:
    """A certificate that the factory gave to a device, in PEM."""
    leaf = signing.issue(
        by, pki.new_key().public_key(), pki.make_subject(cn), profile=Profile.DEVICE, now=NOW + at, days=valid,
        serial=pki.new_serial(), urls=NOWHERE,
    )  # fmt: skip
    return leaf.public_bytes(Encoding.PEM).decode()


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as opened:
        yield opened


async def started(serve: Serve, **settings: Any) -> Running:
    running = await serve(tencent=NO_LIMITS | settings)
    await load_rows(running, CERTIFIED)
    async with running.database.begin() as tx:
        await ca.trust(tx, "factory", FACTORY.certificate)
    return running


@pytest.fixture
async def running(serve: Serve) -> Running:
    return await started(serve)


@pytest.fixture
def client(session: aiohttp.ClientSession, running: Running) -> Registrant:
    return Registrant(session, running)


async def register(client: Registrant, device: str = "dev1", pem: str | None = None) -> Reply:
    return await client.register(
        device, PRODUCT_ID, more=None if pem is None else {"EncryptionType": 1, "ClientCert": pem}
    )


async def find(running: Running, key: str = "dev1") -> Device:
    async with running.database.read() as tx:
        return await registry.device(tx, "tencent", PRODUCT_ID, key)


async def inventory(running: Running, key: str = "dev1") -> list[Certificate]:
    device = await find(running, key)
    async with running.database.read() as tx:
        return await certificates.of_device(tx, device.id)


async def connect(running: Running) -> None:
    device = await find(running)
    async with running.database.begin() as tx:
        await logins.activate(tx, [device.id])


# --- ours ---


async def test_a_device_gets_a_certificate_and_its_key(client: Registrant, running: Running) -> None:
    given = (await register(client)).given()
    assert list(given) == ["encryptionType", "clientCert", "clientKey"]
    assert given["encryptionType"] == 1
    (leaf,) = x509.load_pem_x509_certificates(given["clientCert"].encode())
    assert leaf.subject.rfc4514_string() == f"CN={PRODUCT_ID}dev1,O=Gatehouse"
    key = load_pem_private_key(given["clientKey"].encode(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    assert key.curve.name == "secp256r1"
    assert key.public_key() == leaf.public_key()
    async with running.database.read() as tx:
        authority = await authorities.default(tx)
    assert authority is not None
    leaf.verify_directly_issued_by(x509.load_der_x509_certificate(authority.certificate))
    (known,) = await inventory(running)
    assert (known.status, known.der) == (Status.VALID, leaf.public_bytes(Encoding.DER))
    assert (await find(running)).self_registered


async def test_the_organization_is_a_setting(serve: Serve, session: aiohttp.ClientSession) -> None:
    client = Registrant(session, await started(serve, organization="Example Ltd"))
    leaf = x509.load_pem_x509_certificate((await register(client)).given()["clientCert"].encode())
    assert leaf.subject.rfc4514_string() == f"CN={PRODUCT_ID}dev1,O=Example Ltd"


async def test_another_one_revokes_the_one_before(client: Registrant, running: Running) -> None:
    """Keys are not kept: the same cannot be given again."""
    first = (await register(client)).given()
    second = (await register(client)).given()
    assert first["clientKey"] != second["clientKey"]
    assert [(each.status, each.reason) for each in await inventory(running)] == [
        (Status.REVOKED, Revocation.SUPERSEDED), (Status.VALID, None),
    ]  # fmt: skip


@pytest.mark.parametrize("policy", ["deny", "same", "rotate"])
async def test_one_that_has_connected(serve: Serve, session: aiohttp.ClientSession, policy: str) -> None:
    running = await started(serve, reregister=policy)
    client = Registrant(session, running)
    await register(client)
    await connect(running)
    again = await register(client)
    assert again.code == (0 if policy == "rotate" else 1007)
    assert [each.status for each in await inventory(running)] == (
        [Status.REVOKED, Status.VALID] if policy == "rotate" else [Status.VALID]
    )


async def test_a_name_that_no_certificate_has_room_for(client: Registrant, running: Running) -> None:
    long = "P" * 32
    await load_rows(running, CERTIFIED | {"productId": long})
    reply = await client.register("d" * 33, long)
    assert (reply.code, reply.body["message"]) == (1002, "DeviceName is invalid")
    (await client.register("d" * 32, long)).given()


async def test_the_limit_under_a_race(client: Registrant, running: Running) -> None:
    await load_rows(running, CERTIFIED | {"registerLimit": 2})
    replies = await asyncio.gather(*(register(client, f"d{n}") for n in range(12)))
    assert Counter(reply.code for reply in replies) == {0: 2, 1006: 10}
    async with running.database.read() as tx:
        product = await registry.product(tx, "tencent", PRODUCT_ID)
        assert await registrations.devices_of(tx, product.id) == 2
        assert len(await devices.page(tx, devices.Filter(product=PRODUCT_ID), 0, 99)) == 2


async def test_one_device_many_times_at_once_has_one_valid_certificate(client: Registrant, running: Running) -> None:
    replies = await asyncio.gather(*(register(client) for _ in range(6)))
    assert {reply.code for reply in replies} == {0}
    assert Counter(each.status for each in await inventory(running)) == {Status.VALID: 1, Status.REVOKED: 5}


# --- the device's own ---


async def test_a_certificate_of_the_products_authority_is_adopted(client: Registrant, running: Running) -> None:
    pem = brought()
    given = (await register(client, pem=pem)).given()
    assert given == {"encryptionType": 1, "clientCert": pem}
    (known,) = await inventory(running)
    assert (known.status, known.cn) == (Status.VALID, "from the line")


async def test_the_same_again_is_fine_and_another_takes_its_place(client: Registrant, running: Running) -> None:
    pem, other = brought(), brought("another")
    await register(client, pem=pem)
    assert (await register(client, pem=pem)).code == 0
    assert [each.status for each in await inventory(running)] == [Status.VALID]
    assert (await register(client, pem=other)).code == 0
    assert [(each.cn, each.status) for each in await inventory(running)] == [
        ("from the line", Status.REVOKED), ("another", Status.VALID),
    ]  # fmt: skip
    assert (await register(client, pem=pem)).code == 1002, "it is revoked"


async def test_a_chain_that_comes_along_is_left_out(client: Registrant) -> None:
    pem = brought()
    chain = pem + FACTORY.certificate.public_bytes(Encoding.PEM).decode()
    assert (await register(client, pem=chain)).given()["clientCert"] == pem


def stranger() -> Issuer:
    """It bears the factory's name."""
    key = pki.new_key()
    return Issuer(signing.make_authority(pki.make_subject("Factory CA"), key, now=NOW, years=9, serial=78), key)


BAD: dict[str, Callable[[], str]] = {
    "no PEM": lambda: "PEM",
    "empty PEM": lambda: "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
    "another authority": lambda: brought(by=stranger()),
    "self-signed": lambda: FACTORY.certificate.public_bytes(Encoding.PEM).decode(),
    "expired": lambda: brought(at=-days(60)),
    "not yet valid": lambda: brought(at=days(5)),
}


@pytest.mark.parametrize("what", BAD)
async def test_a_bad_certificate_leaves_nothing_behind(client: Registrant, running: Running, what: str) -> None:
    reply = await register(client, pem=BAD[what]())
    assert (reply.code, reply.body["message"]) == (1002, "ClientCert is invalid")
    with pytest.raises(Refusal, match="unknown"):
        await find(running)
    async with running.database.read() as tx:
        assert await registrations.devices_of(tx, (await registry.product(tx, "tencent", PRODUCT_ID)).id) == 0


async def test_the_certificate_of_another_device(client: Registrant) -> None:
    pem = brought()
    assert (await register(client, "first", pem)).code == 0
    assert (await register(client, "second", pem)).code == 1002
    assert (await register(client, "first", pem)).code == 0


async def test_a_product_without_an_authority(client: Registrant, running: Running) -> None:
    await load_rows(running, CERTIFIED | {"caName": ""})
    assert (await register(client, pem=brought())).code == 1002


async def test_an_authority_that_is_no_longer_trusted(client: Registrant, running: Running) -> None:
    async with running.database.begin() as tx:
        await ca.distrust(tx, await ca.find(tx, "factory"), now=NOW)
    assert (await register(client, pem=brought())).code == 1002
