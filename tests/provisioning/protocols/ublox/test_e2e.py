"""End-to-end services: contract, sections 4.4, 8 and 9."""

import asyncio
import json
from base64 import b64decode, b64encode
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESCCM

from provisioning.app import Running
from provisioning.model.account import Account
from provisioning.model.refusal import Reason, Refusal
from provisioning.protocols.ublox import derivation, e2e, refusals
from provisioning.protocols.ublox.reading import Form
from provisioning.store import modules
from tests.provisioning.store.registry import execute
from tests.ublox import OTHER_KEY, ROOT_SECRET, Client, Clock, client, make_account, make_devices

UID = "0002000089282257"
HEADER = "1101000089282257621f7593c47f0000"
KEY_ID = "1101000005B52001443F8C16C7EC"
SYMMETRIC = "/e2e/uplink/symmetrickey/get"
PROTECTION = "/e2e/uplink/protectionparameters/get"
INTEGRITY = "/e2e/uplink/integrityparameters/get"
DOWNLINK = "/e2e/downlink/protectionparameters/get"
DOWNLINK_INTEGRITY = "/e2e/downlink/integrityparameters/get"
ROTATE = "/e2e/key/rotate"
SET = "The automatic rotation has been set. The key will be rotated"
VECTORS = json.loads((Path(__file__).parents[3] / "vectors.json").read_text("utf-8"))["ublox"]


# --- reading and writing ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("form", "field", "value"),
    [
        (e2e.GetSymmetricKey, "KeyID", KEY_ID[:-2]),
        (e2e.GetSymmetricKey, "KeyID", KEY_ID + "00"),
        (e2e.GetSymmetricKey, "KeyID", "3" + KEY_ID[1:]),
        (e2e.GetSymmetricKey, "KeyID", "1 " + KEY_ID[2:]),
        (e2e.GetSymmetricKey, "KeyID", "1g" + KEY_ID[2:]),
        (e2e.GetSymmetricKey, "KeyID", "1²" + KEY_ID[2:]),
        (e2e.GetSymmetricKey, "KeyID", KEY_ID + "\n"),
        (e2e.GetSymmetricKey, "KeyID", 1101),
        (e2e.GetSymmetricKey, "KeyID", None),
        (e2e.GetUplinkProtection, "EncryptedHeader", HEADER[:-2]),
        (e2e.GetUplinkProtection, "EncryptedHeader", "2" + HEADER[1:]),
        (e2e.GetUplinkProtection, "EncryptedHeader", "1" + HEADER[1:24]),
        (e2e.GetUplinkProtection, "EncryptedHeader", "0x" + HEADER[2:]),
        (e2e.GetUplinkProtection, "EncryptedHeader", ""),
        (e2e.GetUplinkIntegrity, "EncryptedHeader", HEADER[:20]),
        (e2e.GetUplinkIntegrity, "EncryptedHeader", "0" + HEADER[1:]),
        (e2e.GetUplinkIntegrity, "EncryptedHeader", [HEADER]),
        (e2e.GetDownlink, "ROTPublicUID", "0002000089282257a"),
    ],
    ids=str,
)
def test_what_is_no_header_is_refused(form: type[Form], field: str, value: object) -> None:
    with pytest.raises(Refusal) as caught:
        form.read({field: value})
    assert refusals.write_error(caught.value) == refusals.Row(400, f"Bad Request. Invalid {field}")


@pytest.mark.parametrize("length", [0, 127, 192, 512, "128", True, 128.5, [128]])
def test_keys_have_128_or_256_bits(length: object) -> None:
    with pytest.raises(Refusal) as caught:
        e2e.GetSymmetricKey.read({"KeyID": KEY_ID, "KeyLength": length})
    assert caught.value.detail["field"] == "KeyLength"
    assert e2e.GetSymmetricKey.read({"KeyID": KEY_ID, "KeyLength": 128.0}).length == 128


def test_integrity_takes_headers_of_each_length_in_either_case() -> None:
    for header in (HEADER, HEADER.upper(), "2" + HEADER[1:24], "2" + HEADER[1:22], "1" + HEADER[1:22]):
        assert e2e.GetUplinkIntegrity.read({"EncryptedHeader": header}).header == bytes.fromhex(header)


@pytest.mark.parametrize("days", [0, 31, 1.5, "7", -1, True])
def test_rotation_takes_1_to_30_days(days: object) -> None:
    with pytest.raises(Refusal) as caught:
        e2e.Rotate.read({"ROTPublicUIDs": [UID], "Type": "AUTOMATIC", "Days": days})
    assert (caught.value.reason, caught.value.detail["field"]) == (Reason.MALFORMED, "Days")
    assert e2e.Rotate.read({"ROTPublicUIDs": [UID], "Type": "AUTOMATIC", "Days": 30.0}).days == 30


@pytest.mark.parametrize(
    ("rotated", "said"),
    [
        (e2e.Rotated(None, adjusted=False), "The continuous rotation has been set."),
        (
            e2e.Rotated(1, adjusted=True),
            f"{SET} every 1 day. The Security heartbeat has been adjusted to 1 day.",
        ),
        (
            e2e.Rotated(7, adjusted=True),
            f"{SET} every 7 days. The Security heartbeat has been adjusted to 7 days.",
        ),
        (
            e2e.Rotated(30, adjusted=False),
            f"{SET} every 30 days.",
        ),
    ],
    ids=lambda value: "" if isinstance(value, str) else str(value.days),
)
def test_rotation_is_told_in_the_vendors_words(rotated: e2e.Rotated, said: str) -> None:
    assert e2e.write_rotated(rotated) == {"Message": said}


# --- the service -----------------------------------------------------------------------------------------------------


def expected_of(kind: str, **more: Any) -> list[tuple[str, dict[str, Any]]]:
    return [(vector["inputs"]["EncryptedHeader"], {**vector["expected"], **more}) for vector in VECTORS[kind]]


@pytest.mark.server
async def test_the_worked_example_and_all_vectors(running: Running, account: Account, api: Client) -> None:
    await make_devices(running.database, account, [UID, "0002000005b52001", "000200000008002f"])
    for bits, vector in zip((128, 256), VECTORS["e2e_symmetrickey"], strict=True):
        expected = {"Key": vector["expected"], "ROTPublicUID": "0002000005b52001"}
        assert await api.ok(SYMMETRIC, {"KeyID": KEY_ID, "KeyLength": bits}) == expected
    assert await api.ok(SYMMETRIC, {"KeyID": KEY_ID, "KeyLength": None}) == expected, "256 bits if nothing is said"
    for header, protection in expected_of("e2e_uplink_protection", ROTPublicUID=2000089282257):
        reply = await api.ok(PROTECTION, {"EncryptedHeader": header})
        assert reply == protection
        assert list(reply) == ["Nonce", "MACLength", "CipherSuite", "Key", "KIV", "ROTPublicUID"]
    for header, integrity in expected_of("e2e_uplink_integrity", ROTPublicUID="000200000008002f"):
        assert await api.ok(INTEGRITY, {"EncryptedHeader": header}) == integrity
    async with running.database.read() as tx:
        rows = await tx.db.fetch("SELECT kind, sum(n)::int AS n FROM usage GROUP BY kind ORDER BY kind")
    assert [tuple(row) for row in rows] == [("ProtectionParameters", 3), ("SymmetricKey", 3)]


@pytest.mark.server
async def test_replies_open_what_a_device_has_sealed(running: Running, account: Account, api: Client) -> None:
    """As the public client does it: what is behind the header, with the reply's key, nonce and length of the tag."""
    await make_devices(running.database, account, [UID], secret=bytes(32))
    for size, header in ((16, HEADER), (11, "29010000" + HEADER[8:16] + "310001")):
        message = derivation.seal_uplink(bytes(32), bytes.fromhex(header), b"21.5 degrees")
        found = await api.ok(PROTECTION, {"EncryptedHeader": message[:size].hex()})
        cipher = AESCCM(b64decode(found["Key"]), tag_length=found["MACLength"] // 8)
        assert cipher.decrypt(b64decode(found["Nonce"]), message[size:], None) == b"21.5 degrees"


@pytest.mark.server
async def test_strict_accounts_get_no_kiv_with_uplink_protection_alone(running: Running) -> None:
    account = await make_account(running.database, strict_e2e=True)
    await make_devices(running.database, account, [UID])
    async with client(running) as nobody:
        api = await nobody.authenticate()
        found = await api.ok(PROTECTION, {"EncryptedHeader": HEADER})
        assert list(found) == ["Nonce", "MACLength", "CipherSuite", "Key", "ROTPublicUID"]
        assert "KIV" in await api.ok(INTEGRITY, {"EncryptedHeader": HEADER})
        assert "KIV" in await api.ok(DOWNLINK, {"ROTPublicUID": UID})


@pytest.mark.server
async def test_whose_keys_are_given(running: Running, account: Account, api: Client) -> None:
    other = await make_account(running.database, OTHER_KEY)
    await make_devices(running.database, other, ["0002000011111111"])
    first, second = await make_devices(running.database, account, ["0002000089282257", "0003abcd89282257"])
    assert (await api.ok(PROTECTION, {"EncryptedHeader": HEADER}))["ROTPublicUID"] == 2000089282257
    found = await api.ok(PROTECTION, {"EncryptedHeader": HEADER.replace("11010000", "1101abcd")})
    assert found["ROTPublicUID"] == "0003abcd89282257"
    nobodys = {
        SYMMETRIC: ("KeyID", "1101000011111111443f8c16c7ec"),
        PROTECTION: ("EncryptedHeader", "1101000011111111621f7593c47f0000"),
        INTEGRITY: ("EncryptedHeader", "1101000099999999621f7593c47f0000"),
        DOWNLINK: ("ROTPublicUID", "0002000011111111"),
        DOWNLINK_INTEGRITY: ("ROTPublicUID", "0002000099999999"),
    }
    for path, (field, value) in nobodys.items():
        await api.refused(path, {field: value}, 400, f"Bad Request. Invalid {field}")
    neither = HEADER.replace("11010000", "1101ffff")
    await api.refused(PROTECTION, {"EncryptedHeader": neither}, 400, "Bad Request. Invalid EncryptedHeader")
    await execute(running.database, "UPDATE device SET disabled = true WHERE id = $1", first)
    await api.refused(PROTECTION, {"EncryptedHeader": HEADER}, 400, "Bad Request. Invalid EncryptedHeader")
    await api.refused(DOWNLINK, {"ROTPublicUID": UID}, 400, "Bad Request. Invalid ROTPublicUID")
    await execute(running.database, "UPDATE device SET secret = NULL, state = 'registered' WHERE id = $1", second)
    await api.refused(DOWNLINK, {"ROTPublicUID": "0003abcd89282257"}, 400, "Bad Request. Invalid ROTPublicUID")
    async with running.database.read() as tx:
        assert await tx.db.fetchval("SELECT sum(n)::int FROM usage") == 2, "what was refused does not count"


@pytest.mark.server
async def test_downlink_parameters(running: Running, account: Account, api: Client) -> None:
    await make_devices(running.database, account, [UID, "0002000089282258"])

    def base64(value: bytes) -> str:
        return b64encode(value).decode()

    protection = await api.ok(DOWNLINK, {"ROTPublicUID": 2000089282257})
    kiv = b64decode(protection["KIV"])
    assert (kiv[:8].hex(), kiv[14:].hex()) == ("1101010089282257", "0001")
    keys = derivation.downlink_keys(ROOT_SECRET, kiv)
    assert protection == {
        "MACLength": 128, "KeyLength": 128, "CipherSuite": "AES_128_CS1_HMAC_SHA256",
        "AuthenticationKey": base64(keys.authentication), "AuthKeyLength": 128,
        "EncryptionKey": base64(keys.encryption), "KIV": base64(kiv), "AESIV": base64(keys.iv),
        "ROTPublicUID": 2000089282257,
    }  # fmt: skip
    integrity = await api.ok(DOWNLINK_INTEGRITY, {"ROTPublicUID": UID})
    following = b64decode(integrity["KIV"])
    assert following == kiv[:14] + b"\0\2", "one counter for both operations"
    assert integrity == {
        "MACLength": 128, "CipherSuite": "AES_128_CS1_HMAC_SHA256", "AuthKeyLength": 128,
        "AuthenticationKey": base64(derivation.downlink_integrity_key(ROOT_SECRET, following)),
        "KIV": base64(following), "ROTPublicUID": 2000089282257,
    }  # fmt: skip
    calls = [api.ok(DOWNLINK, {"ROTPublicUID": uid}) for uid in (UID, "0002000089282258") for _ in range(8)]
    kivs = {found["KIV"] for found in await asyncio.gather(*calls)}
    assert len(kivs) == 16, "no KIV is given twice"


@pytest.mark.server
async def test_keys_rotate_as_they_are_told(running: Running, account: Account, api: Client) -> None:
    clock = Clock()
    clock.set_on(running)
    first, second = await make_devices(running.database, account, [UID, "0002000089282258"])
    async with running.database.begin() as tx:
        await modules.update(tx, second, {"desired": {"SecurityHeartbeatInSec": (86_400, clock.now)}})

    async def epoch() -> bytes:
        return b64decode((await api.ok(DOWNLINK, {"ROTPublicUID": UID}))["KIV"])[8:14]

    async def rotate(said: str, **body: object) -> None:
        assert await api.ok(ROTATE, {"ROTPublicUIDs": [UID, "0002000089282258"], **body}) == {"Message": said}

    before = await epoch()
    adjusted = f"{SET} every 2 days. The Security heartbeat has been adjusted to 2 days."
    await rotate(adjusted, Type="AUTOMATIC", Days=2)
    async with running.database.read() as tx:
        found = await modules.by_ids(tx, [first, second])
    assert [module.desired["SecurityHeartbeatInSec"] for module in found] == [
        (172_800, clock.now), (86_400, clock.now)
    ], "where it was longer"  # fmt: skip
    kept = await epoch()
    assert kept != before, "the rotation begins with an epoch of its own"
    assert await epoch() == kept
    clock.move(days=1.9)
    await api.authenticate()
    assert await epoch() == kept
    clock.move(days=0.1)
    await api.authenticate()
    assert await epoch() != kept
    await rotate(f"{SET} every 7 days.", Type="AUTOMATIC")
    await rotate("The continuous rotation has been set.", Type="CONTINUOUS", Days=3)
    assert len({await epoch() for _ in range(3)}) == 3


@pytest.mark.server
async def test_rotation_by_tag(running: Running, account: Account, api: Client) -> None:
    first, _second = await make_devices(running.database, account, [UID, "0002000089282258"])
    await api.ok("/tag/create", {"TagName": "Downtown"})
    await api.ok("/tag/assign", {"TagNames": ["Downtown"], "ROTPublicUIDs": [UID]})
    await api.ok(ROTATE, {"TagNames": ["downtown"], "Type": "CONTINUOUS"})
    async with running.database.read() as tx:
        rows = await tx.db.fetch("SELECT device_id, mode, days FROM keyset")
    assert [tuple(row) for row in rows] == [(first, "CONTINUOUS", None)]
    await api.refused(ROTATE, {"TagNames": ["downtown", "uptown"], "Type": "CONTINUOUS"}, 404, "Not Found")
    await api.refused(ROTATE, {"ROTPublicUIDs": [UID]}, 400, "Bad Request")
    await api.refused(ROTATE, {"Type": "CONTINUOUS"}, 400, "Bad Request")
    await api.refused(ROTATE, {"ROTPublicUIDs": [UID], "Type": "NEVER"}, 400, "Bad Request. Invalid Type")
    unknown = {"ROTPublicUIDs": [UID, "0002000099999999"], "Type": "CONTINUOUS"}
    await api.refused(ROTATE, unknown, 400, "Bad Request. Invalid ROTPublicUIDs")
    both = {"ROTPublicUIDs": [UID], "TagNames": ["downtown"], "Type": "CONTINUOUS"}
    assert (await api.post(ROTATE, both)).body == {"Message": "Bad Request"}
