"""More than a year of one module's life, on a clock that moves: what it is told, and what its account is told of it."""

import json
from collections import Counter
from datetime import datetime, timedelta
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from provisioning.app import Running
from provisioning.cli.simulation_ublox_checks import Module, check_downlink, check_root, install
from provisioning.core import registry
from provisioning.model.account import Account
from provisioning.upkeep import FOR_ACCOUNTS
from tests.machines import Machine
from tests.ublox import PROFILE, ROOT_SECRET, Answer, Client, Clock, make_devices, make_profile

UID = "0002000089280087"
SERIAL = "123234354"
WEEK = 604_800
FIVE_DAYS = 432_000
KINDS = [
    "DEVICE_BOOTSTRAP_EVENT", "DEVICE_PROPERTIES_CHANGE_EVENT", "DEVICE_ERRORS_EVENT",
    "DEVICE_CERTIFICATE_RENEWAL_EVENT", "DEVICE_CERTIFICATE_EXPIRATION_EVENT", "ROOTCA_EXPIRATION_EVENT",
]  # fmt: skip


class Life:
    """The module, the application of its account, and time."""

    def __init__(self, running: Running, account: Account, api: Client) -> None:
        self.running, self.account, self.api = running, account, api
        self.clock = Clock()
        self.clock.set_on(running)
        self.began = self.clock()
        self.machine = Machine(api, UID, self.clock)
        self.module = Module(UID, 0, ROOT_SECRET, SERIAL)
        self.roots: dict[str, x509.Certificate] = {}
        self.certificate: x509.Certificate | None = None
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.logins = 0

    async def ask(self, path: str, body: object = None) -> Any:
        """The body of an answer that must be 200; it authenticates again when its token has expired."""
        answer = await self.try_ask(path, body)
        assert answer.status == 200, f"{path}: {answer}"
        return answer.body

    async def try_ask(self, path: str, body: object = None) -> Answer:
        answer = await self.api.post(path, body)
        if answer.status != 401:
            return answer
        refresh = {"APIKey": self.account.key, "RefreshToken": self.api.refresh_token}
        renewed = await self.api.post("/refreshauthtoken", refresh)
        if renewed.status == 200:
            self.api.token = renewed.body["AuthToken"]
        else:
            assert renewed.status == 401, renewed
            await self.api.authenticate()
            self.logins += 1
        return await self.api.post(path, body)

    async def make_root(self, name: str) -> None:
        body = {"CAName": name, "CACertificateValidity": 1_825, "DeviceCertificateValidity": 120,
                "RenewBeforeExpiration": 30}  # fmt: skip
        self.roots[name] = check_root((await self.ask("/ztp/rootca/create", body))["Certificate"], name, self.clock())

    async def beat(self, ca: str = "", *, csr: bool = False) -> list[str]:
        """Names of the commands; a certificate, which is one of `ca`'s, is installed."""
        more = {"CSR": self._request()} if csr else {}
        commands = await self.machine.beat(**more)
        for command in commands:
            if command["Command"] == "INSTALL_CERTIFICATE":
                self.certificate, _ = install(command, self.module, self.roots[ca], self.key, self.clock())
            if command["Command"] == "REMOVE_CERTIFICATE":
                assert command["SerialNumber"] == self.serial
                self.certificate = None
        return [command["Command"] for command in commands]

    def _request(self) -> str:
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "whatever")])
        return x509.CertificateSigningRequestBuilder(name).sign(self.key, SHA256()).public_bytes(Encoding.PEM).decode()

    @property
    def serial(self) -> str:
        assert self.certificate is not None
        return f"{self.certificate.serial_number:x}"

    async def week(self, ca: str = "") -> list[str]:
        """A week later: the commands of its heartbeat, and what the service does by itself."""
        self.clock.move(weeks=1)
        found = await self.beat(ca)
        await self.care()
        return found

    async def care(self) -> None:
        for work in FOR_ACCOUNTS:
            async with self.running.database.begin() as tx:
                await work(tx, now=self.clock(), limit=100)

    async def events(self) -> list[tuple[str, dict[str, Any]]]:
        """Type and payload of all that was announced."""
        async with self.running.database.read() as tx:
            rows = await tx.db.fetch("SELECT body FROM delivery ORDER BY id")
        found = [json.loads(row["body"]) for row in rows]
        return [(each["EventType"], each["Payload"]) for each in found]

    def ago(self, **delta: float) -> str:
        return (self.clock() - timedelta(**delta)).isoformat()


async def begin(running: Running, account: Account, api: Client) -> Life:
    database = running.database
    await make_devices(database, account, [UID], serial=SERIAL)
    await make_profile(database, account)
    async with database.begin() as tx:
        await tx.db.execute(
            """INSERT INTO webhook (account_id, url, kind, authorization_token, created_at)
               SELECT $1, 'https://127.0.0.1:9/', kind, ''::bytea, $3 FROM unnest($2::text[]) AS kinds (kind)""",
            account.id, KINDS, Clock()(),
        )  # fmt: skip
    return Life(running, account, api)


async def test_a_year(running: Running, account: Account, api: Client) -> None:
    life = await begin(running, account, api)
    await _comes_to_be(life)
    await _lives_on_its_own(life)
    await _changes_its_keys(life)
    await _is_away_for_some_weeks(life)
    await _changes_its_certificate(life)
    await _has_a_clone(life)
    await _is_asked_about(life)
    await _goes(life)


async def _comes_to_be(life: Life) -> None:
    """It bootstraps too early, is allowed, and gets what its profile has for it."""
    await life.make_root("ca1")
    provisioning = {"LocalDPR": "ENABLED", "ZTPV1": "ENABLED", "CAName": "ca1", "SecurityHeartbeatInSec": WEEK}
    path = "/deviceprofile/bootstrapprovisioning/set"
    await life.ask(path, {"DeviceProfileUID": PROFILE, "Provisioning": provisioning})
    reply = await life.machine.bootstrap(DeviceProfileUID=PROFILE, DeviceSerialNumber=SERIAL, SerialNumber="1")
    assert (reply["State"], reply["IsBlacklisted"]) == ("ALLOCATED", True)
    assert (await life.ask("/device/list/get", {"Filter": "BLACKLISTED"}))["ROTPublicUIDs"] == [UID]
    assert await life.week() == []
    await life.ask("/device/whitelist/add", {"ROTPublicUIDs": [UID]})
    life.clock.move(hours=1)
    assert await life.beat("ca1", csr=True) == ["SET_AUTHORIZATIONS", "SET_HEARTBEAT", "INSTALL_CERTIFICATE"]
    await life.care()
    (info,) = (await life.ask("/device/info/get", {"ROTPublicUIDs": [UID]}))["DeviceInfo"]
    assert (info["ROT"]["State"], info["ROT"]["IsBlacklisted"]) == ("ACTIVATED", False)
    assert (info["ZTP"]["CertificateSerialNumber"], info["ZTP"]["CertificateAuthorityName"]) == (life.serial, "ca1")


async def _lives_on_its_own(life: Life) -> None:
    """Its certificate is renewed 30 days before it expires; 60 days before the account is told."""
    serials, renewed = {life.serial}, []
    for week in range(1, 40):
        if await life.week("ca1"):
            renewed.append(week)
            serials.add(life.serial)
    assert renewed == [13, 26, 39], "120 days less 30, at the next heartbeat"
    assert len(serials) == 4
    expiring = [each for kind, each in await life.events() if kind == "DEVICE_CERTIFICATE_EXPIRATION_EVENT"]
    assert [each["DaysToExpiration"] for each in expiring] == [57, 57, 57]
    renewals = [each for kind, each in await life.events() if kind == "DEVICE_CERTIFICATE_RENEWAL_EVENT"]
    assert [each["CertificateAuthorityName"] for each in renewals] == ["ca1"] * 3
    assert renewals[-1]["CertificateSerialNumber"] == life.serial


async def _changes_its_keys(life: Life) -> None:
    """The keys of the downlink; the module is told of them, and comes more often."""
    path, body = "/e2e/downlink/protectionparameters/get", {"ROTPublicUID": UID}
    first = check_downlink(await life.ask(path, body), life.module)
    rotate = {"ROTPublicUIDs": [UID], "Type": "AUTOMATIC", "Days": 5}
    said = await life.ask("/e2e/key/rotate", rotate)
    assert said["Message"].endswith("The Security heartbeat has been adjusted to 5 days.")
    second = check_downlink(await life.ask(path, body), life.module)
    assert second[8:14] != first[8:14]
    assert await life.week() == ["SET_HEARTBEAT", "ROTATE_KEYSET"]
    third = check_downlink(await life.ask(path, body), life.module)
    assert third[8:14] != second[8:14]
    assert await life.week() == ["ROTATE_KEYSET"]
    assert await life.ask("/e2e/key/rotate", {"ROTPublicUIDs": [UID], "Type": "CONTINUOUS"})
    assert await life.week() == ["ROTATE_KEYSET"]
    assert await life.week() == []


async def _is_away_for_some_weeks(life: Life) -> None:
    """Twice its interval of five days, and the account is told, once."""
    for days in (9, 1, 7, 7):
        life.clock.move(days=days)
        await life.care()
    errors = [payload["Error"] for kind, payload in await life.events() if kind == "DEVICE_ERRORS_EVENT"]
    assert len(errors) == 1
    assert errors[0].startswith("The device is unreachable.")
    (info,) = (await life.ask("/device/info/get", {"ROTPublicUIDs": [UID]}))["DeviceInfo"]
    assert datetime.fromisoformat(info["ROT"]["LastSeen"]) == life.clock() - timedelta(days=24)
    assert await life.beat("ca1") == []


async def _changes_its_certificate(life: Life) -> None:
    """A new key in two heartbeats, another CA, a revocation, and none any more."""
    old, old_key = life.serial, life.key
    await life.ask("/ztp/devicecertificate/update", {"CAName": "ca1", "SerialNumbers": [old]})
    assert await life.week("ca1") == ["REMOVE_CERTIFICATE"]
    refused = await life.try_ask("/ztp/devicecertificate/delete", {"ROTPublicUIDs": [UID]})
    assert refused.status == 400, "not while an update is running"
    life.key = ec.generate_private_key(ec.SECP256R1())
    life.clock.move(weeks=1)
    assert await life.beat("ca1", csr=True) == ["INSTALL_CERTIFICATE"]
    assert life.serial != old
    assert life.key.public_key() != old_key.public_key()
    await life.make_root("ca2")
    await life.ask("/ztp/devicecertificate/rootca/transfer", {"FromCA": "ca1", "ToCA": "ca2", "ROTPublicUIDs": [UID]})
    assert await life.week("ca2") == ["INSTALL_CERTIFICATE"]
    await life.ask("/ztp/devicecertificate/revoke", {"CAName": "ca2", "ROTPublicUID": UID})
    (crl,) = (await life.ask("/ztp/rootca/crl/get", {"CANames": ["ca2"]}))["CRLs"]
    assert crl["SerialNumbers"] == [life.serial]
    parsed = x509.load_pem_x509_crl(crl["CRL"].encode())
    assert life.certificate is not None
    assert parsed.get_revoked_certificate_by_serial_number(life.certificate.serial_number) is not None
    assert await life.week() == [], "it stays on the device"
    await life.ask("/ztp/devicecertificate/delete", {"ROTPublicUIDs": [UID]})
    assert await life.week() == ["REMOVE_CERTIFICATE"]
    assert await life.week() == []
    (info,) = (await life.ask("/device/info/get", {"ROTPublicUIDs": [UID], "Options": ["ZTP"]}))["DeviceInfo"]
    assert info["ZTP"].get("CertificateSerialNumber") is None


async def _has_a_clone(life: Life) -> None:
    """It bootstraps anew with its data, and beats with a counter of its own."""
    clone = Machine(life.api, UID, life.clock, counter=3)
    reply = await clone.bootstrap(DeviceProfileUID=PROFILE, DeviceSerialNumber="999", SerialNumber="2")
    assert reply["State"] == "ACTIVATED"
    assert (await clone.try_beat()).status == 400
    assert await life.beat() == [], "the first one goes on"
    asked = {"ROTPublicUIDs": [UID], "FromDate": life.ago(days=1)}
    found = await life.ask("/device/clone/get", asked)
    assert [each["Reason"] for each in found["ClonedEvents"]] == ["DUPLICATE_BOOTSTRAP", "COUNTER_REGRESSION"]
    (info,) = (await life.ask("/device/info/get", {"DeviceSerialNumbers": [SERIAL]}))["DeviceInfo"]
    assert (info["ROTPublicUID"], info["ROT"]["SerialNumber"]) == (UID, "1")


async def _is_asked_about(life: Life) -> None:
    """What its account can look up at the end."""
    assert life.logins >= 10, "tokens live an hour, the means to renew them three days"
    for _ in range(2):
        await life.week()
    half_year = {"ROTPublicUIDs": [UID], "FromDate": life.ago(days=179)}
    told = (await life.ask("/notification/get", half_year))["Notifications"]
    assert Counter(each["NotificationType"] for each in told)["DEVICE_ERROR"] == 1
    assert not [each for each in told if each["NotificationType"] == "DEVICE_STATE_CHANGE"], "that was long ago"
    refused = await life.try_ask("/notification/get", half_year | {"FromDate": life.ago(days=181)})
    assert (refused.status, refused.body) == (400, {"message": "Bad Request. Invalid FromDate"})
    did: Counter[str] = Counter()
    for page in (1, 2):
        asked = {"ROTPublicUID": UID, "FromDate": life.ago(days=500), "PageNumber": page}
        listed = await life.ask("/device/activity/get", asked)
        did.update(each["Command"] for each in listed["Activities"])
    assert did == {
        "BOOTSTRAP": 2, "HEARTBEAT": life.machine.counter, "SET_AUTHORIZATIONS": 1, "SET_HEARTBEAT": 2,
        "ROTATE_KEYSET": 3, "INSTALL_CERTIFICATE": 6, "REMOVE_CERTIFICATE": 2,
    }  # fmt: skip
    usage = await life.ask("/device/usage/get", {"FromDate": life.ago(days=60)[:10], "ROTPublicUIDs": [UID]})
    counted = usage["2000089280087"]
    assert (list(usage), counted["CertificateUpdates"], counted["CertificateRenewals"]) == (["2000089280087"], 1, 0)
    assert life.clock() - life.began > timedelta(days=365)
    assert (await life.ask("/device/suspicious/get", {"ROTPublicUIDs": [UID]}))["SuspiciousDevices"] == []
    kinds = Counter(kind for kind, _ in await life.events())
    assert (kinds["DEVICE_BOOTSTRAP_EVENT"], kinds["DEVICE_ERRORS_EVENT"]) == (1, 1)
    assert kinds["DEVICE_PROPERTIES_CHANGE_EVENT"] == 2, "activation; a shorter interval"


async def _goes(life: Life) -> None:
    """Nothing is left of it but what others have seen."""
    async with life.running.database.begin() as tx:
        device = await registry.device(tx, "ublox", life.account.key, UID)
        await registry.delete_device(tx, device)
    answer = await life.machine.try_beat()
    assert (answer.status, answer.body) == (401, {"message": "Not Authorized."})
    refused = await life.try_ask("/device/info/get", {"ROTPublicUIDs": [UID]})
    assert (refused.status, refused.body) == (400, {"message": "Bad Request. Invalid ROTPublicUIDs"})
    await life.care()
    for name in ("ca1", "ca2"):
        deleted = await life.try_ask("/ztp/rootca/delete", {"CAName": name})
        expected = (400, "ca1") if name == "ca1" else (200, "ca2")
        assert (deleted.status, name) == expected, "its profile has the first one"
