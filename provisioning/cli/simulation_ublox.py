"""Simulated u-blox modules, and the application of their account: strict about every answer on both sides.

Each module takes these steps; those of the application keep to the requests a second that its account has:

    whitelist   the application allows it, many at a time
    bootstrap   POST /device/v1/bootstrap: activated at once
    provision   the application orders authorizations, an interval of heartbeats and a certificate
    heartbeat   all that as commands; the certificate and its key are good
    confirm     the next heartbeat acknowledges them, and nothing is left
    uplink      two encrypted messages, v1 and v2, that the application can read
    downlink    the application gets the keys that the module has
    info        the application sees it as it is
    clone       some: another one with its secret, which is noticed

Before the first one the application authenticates and creates a root CA.
"""

import asyncio
import json
import os
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from provisioning.cli.simulation import QUOTED, SUCCESS, Stage, WrongAnswerError
from provisioning.cli.simulation_ublox_checks import Module, check, check_downlink, check_root, decrypt, install

STEPS: Final = (
    "authenticate", "rootca", "whitelist", "bootstrap", "provision", "heartbeat", "confirm", "uplink", "downlink",
    "info", "clone",
)  # fmt: skip
BATCH: Final = 500
"""Modules that are allowed by one request."""
SPARE: Final = 0.9
"""Of the requests a second so much is used: the account may have other applications."""
EXPIRED: Final = 401
THROTTLED: Final = 429
REFUSED: Final = 400
ATTEMPTS: Final = 5
"""For a request that is throttled, or whose token has expired."""
INTERVAL: Final = 86_400
"""Seconds between heartbeats."""
CA_DAYS: Final = 1_825
LEAF_DAYS: Final = 365
EPOCH_BYTES: Final = 6
MESSAGE: Final = b'{"temp": 21.5}'
V1: Final = 16
V2: Final = (12, 11)
"""Bytes of a header; the modules take turns."""
AUTHORIZATIONS: Final = {"LocalDPR": "ENABLED", "ZTPV1": "ENABLED"}


@dataclass(slots=True)
class Turns:
    """Requests of one application: so many a second; 0: no limit."""

    rate: float
    _next: float = 0.0

    async def take(self) -> None:
        """Wait for the next one."""
        if self.rate:
            now = asyncio.get_running_loop().time()
            at = max(self._next, now)
            self._next = at + 1 / (self.rate * SPARE)
            await asyncio.sleep(at - now)


@dataclass(slots=True)
class Application:
    """Acts for the account."""

    http: str
    """Base URL."""
    key: str
    secret: str = field(repr=False)
    turns: Turns
    _token: str | None = field(default=None, repr=False)
    _entering: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def post(self, stage: Stage, step: str, path: str, body: Mapping[str, object]) -> Any:
        """The body of an answer that must be 200. Waiting for a turn is no part of the step.

        Raises:
            WrongAnswerError.
        """
        token = await self._enter(stage)
        for _ in range(ATTEMPTS):
            status, text = await self._send(stage, step, path, body, token)
            if status == EXPIRED:
                token = await self._enter(stage, instead_of=token)
            elif status != THROTTLED:
                break
        async with stage.step(step):
            return read(status, text)

    async def _enter(self, stage: Stage, instead_of: str | None = None) -> str:
        """An AuthToken: the one that there is, but for one that is not good any more."""
        async with self._entering:
            if self._token == instead_of or self._token is None:
                body = {"APIKey": self.key, "APISecret": self.secret}
                status, text = await self._send(stage, "authenticate", "/authenticate", body, None)
                async with stage.step("authenticate"):
                    self._token = str(read(status, text)["AuthToken"])
            return self._token

    async def _send(
        self, stage: Stage, step: str, path: str, body: Mapping[str, object], token: str | None
    ) -> tuple[int, str]:
        await self.turns.take()
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        async with stage.step(step):
            with stage.report.timed(step):
                return await stage.whole(post(stage, f"{self.http}/v1{path}", body, headers))


async def post(stage: Stage, url: str, body: Mapping[str, object], headers: Mapping[str, str]) -> tuple[int, str]:
    async with stage.http.post(url, json=body, headers=headers) as response:
        return response.status, await response.text()


def read(status: int, text: str) -> Any:
    """Raises: WrongAnswerError: not 200; ValueError: no JSON."""
    if status != SUCCESS:
        raise WrongAnswerError(f"HTTP {status}: {text[:QUOTED]}")
    return json.loads(text)


@dataclass(slots=True, kw_only=True)
class Plan:
    """What all modules of a run have in common."""

    http: str
    """Base URL."""
    application: Application
    fleet: Mapping[str, Module] = field(repr=False)
    """By uid."""
    ca_name: str
    clones: int
    """One of so many modules has a clone; 0: none has."""
    _once: dict[object, asyncio.Task[Any]] = field(default_factory=dict, repr=False)

    async def live(self, stage: Stage, uid: str) -> None:
        """Raises: WrongAnswerError."""
        await Player(self, stage, self.fleet[uid]).live()

    async def root(self, stage: Stage) -> x509.Certificate:
        """The root CA of the run. Raises: WrongAnswerError."""

        async def create() -> x509.Certificate:
            body = {"CAName": self.ca_name, "CACertificateValidity": CA_DAYS, "DeviceCertificateValidity": LEAF_DAYS}
            answer = await self.application.post(stage, "rootca", "/ztp/rootca/create", body)
            async with stage.step("rootca"):
                return check_root(answer["Certificate"], self.ca_name, datetime.now(UTC))

        return await self._do_once("rootca", create)  # type: ignore[no-any-return]

    async def allow(self, stage: Stage, module: Module) -> None:
        """Put it on the whitelist, with its neighbours. Raises: WrongAnswerError."""
        batch = module.number // BATCH

        async def add() -> None:
            uids = [each.uid for each in self.fleet.values() if each.number // BATCH == batch]
            await self.application.post(stage, "whitelist", "/device/whitelist/add", {"ROTPublicUIDs": uids})

        await self._do_once(batch, add)

    async def _do_once(self, what: object, work: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
        """For the first who asks; others get what came of it."""
        if what not in self._once:
            self._once[what] = task = asyncio.create_task(work())
            task.add_done_callback(lambda done: done.cancelled() or done.exception())  # seen, even if nobody waits
        return await asyncio.shield(self._once[what])


class Player:
    """One module, and what the application does for it."""

    def __init__(self, plan: Plan, stage: Stage, module: Module) -> None:
        self._plan = plan
        self._stage = stage
        self._module = module
        self._counter = 0
        self._key = ec.generate_private_key(ec.SECP256R1()) if module.number % 2 else None
        """Every other one makes its own key."""

    async def live(self) -> None:
        root = await self._plan.root(self._stage)
        await self._plan.allow(self._stage, self._module)
        await self._bootstrap()
        await self._provision()
        told, serial = await self._heartbeat(root)
        await self._confirm(told)
        await self._uplink(V1)
        await self._uplink(V2[self._module.number % 2])
        await self._downlink()
        await self._info(serial)
        if self._plan.clones and self._module.number % self._plan.clones == 0:
            await self._clone()

    # --- the module ---

    async def _bootstrap(self) -> None:
        async with self._stage.step("bootstrap"):
            answer = read(*await self._tell("bootstrap", "/device/v1/bootstrap", {
                "Timestamp": datetime.now(UTC).isoformat(), "Nonce": os.urandom(8).hex(),
                "DeviceSerialNumber": self._module.device_serial, "TypeNumber": "SIM-1", "RotVersion": "1",
                "Version": "1", "SerialNumber": self._module.uid,
            }))  # fmt: skip
            check({
                "it is another's": answer["ROTPublicUID"] != self._module.uid,
                f"it is {answer['State']}": answer["State"] != "ACTIVATED" or answer["IsBlacklisted"] is not False,
                "commands without provisioning": answer["Commands"] != [],
            })  # fmt: skip

    async def _heartbeat(self, root: x509.Certificate) -> tuple[list[dict[str, object]], str]:
        """Acknowledgements of what it was told, and the serial number of its certificate."""
        async with self._stage.step("heartbeat"):
            csr = {} if self._key is None else {"CSR": self._request()}
            answer = await self._beat("heartbeat", [], csr)
            commands = {each["Command"]: each for each in answer["Commands"]}
            check({
                f"the commands are {', '.join(commands)}": commands.keys()
                != {"SET_AUTHORIZATIONS", "SET_HEARTBEAT", "INSTALL_CERTIFICATE"},
            })  # fmt: skip
            states = {each["Name"]: each["State"] for each in commands["SET_AUTHORIZATIONS"]["Authorizations"]}
            check(
                {
                    "other authorizations than ordered": states != AUTHORIZATIONS,
                    "another interval than ordered": commands["SET_HEARTBEAT"]["SecurityHeartbeatInSec"] != INTERVAL,
                }
            )
            leaf, _ = install(commands["INSTALL_CERTIFICATE"], self._module, root, self._key, datetime.now(UTC))
            told = [{"Id": each["Id"], "Command": name, "Result": "OK"} for name, each in commands.items()]
            return told, f"{leaf.serial_number:x}"

    async def _confirm(self, told: list[dict[str, object]]) -> None:
        async with self._stage.step("confirm"):
            answer = await self._beat("confirm", told, {})
            check({"commands are left": answer["Commands"] != []})

    async def _beat(self, step: str, applied: list[dict[str, object]], more: Mapping[str, object]) -> Any:
        self._counter += 1
        body = {"Counter": self._counter, "Applied": applied, **more}
        return read(*await self._tell(step, "/device/v1/heartbeat", body))

    def _request(self) -> str:
        """A request for a certificate, PEM."""
        assert self._key is not None
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, self._module.uid)])
        request = x509.CertificateSigningRequestBuilder(name).sign(self._key, SHA256())
        return request.public_bytes(Encoding.PEM).decode()

    async def _tell(self, step: str, path: str, body: Mapping[str, object]) -> tuple[int, str]:
        signed = self._module.sign({"ROTPublicUID": self._module.uid, **body})
        with self._stage.report.timed(step):
            return await self._stage.whole(post(self._stage, self._plan.http + path, signed, {}))

    async def _clone(self) -> None:
        """Another one comes with the counter of before."""
        async with self._stage.step("clone"):
            body = {"Counter": self._counter, "Applied": []}
            status, text = await self._tell("clone", "/device/v1/heartbeat", body)
            check({f"a clone got HTTP {status}: {text[:QUOTED]}": status != REFUSED or "Invalid Counter" not in text})
        since = (datetime.now(UTC) - timedelta(hours=1)).isoformat()
        body = {"ROTPublicUIDs": [self._module.uid], "FromDate": since}
        answer = await self._ask("clone", "/device/clone/get", body)
        async with self._stage.step("clone"):
            found = [(each["ROTPublicUID"], each["Reason"]) for each in answer["ClonedEvents"]]
            check({"the clone was not noticed": found != [(self._module.uid, "COUNTER_REGRESSION")]})

    # --- the application ---

    async def _ask(self, step: str, path: str, body: Mapping[str, object]) -> Any:
        return await self._plan.application.post(self._stage, step, path, body)

    async def _provision(self) -> None:
        body = {
            "ROTPublicUIDs": [self._module.uid],
            "Provisioning": {
                "Authorizations": [{"Name": name, "State": state} for name, state in AUTHORIZATIONS.items()],
                "NetworkParameters": [{"Name": "SecurityHeartbeatInSec", "Value": INTERVAL}],
                "Zerotouch": {"CAName": self._plan.ca_name},
            },
        }
        await self._ask("provision", "/device/provisioning/set", body)

    async def _uplink(self, length: int) -> None:
        """A message whose header has so many bytes."""
        module = self._module
        header = module.header(length, os.urandom(EPOCH_BYTES), self._counter)
        message = module.encrypt(header, MESSAGE)
        body = {"EncryptedHeader": header.hex()}
        answer = await self._ask("uplink", "/e2e/uplink/protectionparameters/get", body)
        async with self._stage.step("uplink"):
            check({"it is another's": answer["ROTPublicUID"] != module.number_or_uid})
            check({"the message reads otherwise": decrypt(answer, message) != MESSAGE})

    async def _downlink(self) -> None:
        body = {"ROTPublicUID": self._module.uid}
        answer = await self._ask("downlink", "/e2e/downlink/protectionparameters/get", body)
        async with self._stage.step("downlink"):
            check_downlink(answer, self._module)

    async def _info(self, serial: str) -> None:
        answer = await self._ask("info", "/device/info/get", {"ROTPublicUIDs": [self._module.uid]})
        async with self._stage.step("info"):
            (found,) = answer["DeviceInfo"]
            current = found["Provisioning"]["CurrentProperties"]
            check({
                "it is another's": found["ROTPublicUID"] != self._module.uid,
                f"it is {found['ROT']['State']}": found["ROT"]["State"] != "ACTIVATED",
                "another serial number": found["ROT"]["DeviceSerialNumber"] != self._module.device_serial,
                "another certificate": found["ZTP"]["CertificateSerialNumber"] != serial,
                "another CA": found["ZTP"]["CertificateAuthorityName"] != self._plan.ca_name,
                "it is provisioned otherwise": {each["Name"]: each["State"] for each in current["Authorizations"]}
                != AUTHORIZATIONS,
            })  # fmt: skip
