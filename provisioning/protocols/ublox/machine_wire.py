"""What modules say and are told: bodies of the device interface, and the Mac that proves them. Pure.

Contract: section 3, where the device interface is our own.
"""

import hmac
import json
from collections.abc import Mapping, Sequence
from enum import StrEnum
from hashlib import sha256
from typing import Annotated, Any, Final, Literal, TypedDict

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from pydantic import BeforeValidator, Field

from provisioning.model.command import Command
from provisioning.model.module import Module, Properties
from provisioning.protocols.ublox import wire
from provisioning.protocols.ublox.provisioning import interval
from provisioning.protocols.ublox.reading import Form, Instant, ProfileUid, Uid

BOOTSTRAP: Final = "/device/v1/bootstrap"
HEARTBEAT: Final = "/device/v1/heartbeat"
LARGEST_BODY: Final = 16_384
"""Bytes: room for a request for a certificate and for all acknowledgements."""
MAC: Final = "Mac"
PRIVATE_KEY: Final = "PrivateKey"
MAC_INFO: Final = b"uss/hb"
KEY_BYTES: Final = 32
LARGEST_COUNTER: Final = 2**63 - 1
LONGEST_ERROR: Final = 256
"""Characters of a module's error text that are kept."""
MOST_APPLIED: Final = 100
LARGEST_ID: Final = 2**63 - 1


class State(StrEnum):
    """Of a module, as applications read it."""

    UNKNOWN = "UNKNOWN"
    """It has not bootstrapped."""
    ALLOCATED = "ALLOCATED"
    """It has bootstrapped without leave."""
    ACTIVATED = "ACTIVATED"


class Kind(StrEnum):
    """Commands to modules."""

    SET_AUTHORIZATIONS = "SET_AUTHORIZATIONS"
    SET_HEARTBEAT = "SET_HEARTBEAT"
    INSTALL_CERTIFICATE = "INSTALL_CERTIFICATE"
    REMOVE_CERTIFICATE = "REMOVE_CERTIFICATE"
    ROTATE_KEYSET = "ROTATE_KEYSET"


class Activity(StrEnum):
    """What a module has done, besides carrying out commands."""

    BOOTSTRAP = "BOOTSTRAP"
    HEARTBEAT = "HEARTBEAT"


# --- reading ---------------------------------------------------------------------------------------------------------


def _printable(value: object) -> object:
    if isinstance(value, str) and not value.isprintable():
        raise ValueError("must be printable")
    return value


def _named(value: object) -> object:
    """A command's name alone is an acknowledgement too."""
    return {"Command": value} if isinstance(value, str) else value


Line = Annotated[str, BeforeValidator(_printable), Field(min_length=1, max_length=64)]
Serial = Annotated[str, Field(pattern=r"^[ -~]{1,16}\Z")]
Imei = Annotated[str, Field(pattern=r"^[0-9]{14,16}\Z")]


class Proven(Form):
    """A body that ends with its Mac."""

    uid: Uid = Field(alias="ROTPublicUID")
    mac: Annotated[str, Field(min_length=1, max_length=128)] = Field(alias=MAC, repr=False)


class Bootstrap(Proven):
    at: Instant = Field(alias="Timestamp")
    """By the module's own clock."""
    nonce: Line = Field(alias="Nonce")
    profile: ProfileUid | None = Field(None, alias="DeviceProfileUID")
    device_serial: Serial | None = Field(None, alias="DeviceSerialNumber")
    imei: Imei | None = Field(None, alias="IMEI")
    type_number: Line | None = Field(None, alias="TypeNumber")
    rot_version: Line | None = Field(None, alias="RotVersion")
    version: Line | None = Field(None, alias="Version")
    serial: Line | None = Field(None, alias="SerialNumber")

    @property
    def profile_uid(self) -> str | None:
        """None: it has none sealed."""
        return None if self.profile == wire.UNATTRIBUTED else self.profile


class Applied(Form):
    """What became of a command: of that one, or of all of this name."""

    id: Annotated[int, Field(ge=1, le=LARGEST_ID)] | None = Field(None, alias="Id")
    kind: Annotated[Kind, BeforeValidator(Kind)] = Field(alias="Command")
    result: Literal["OK", "ERROR"] | None = Field(None, alias="Result")
    error: Annotated[str, Field(max_length=4_096)] | None = Field(None, alias="Error")

    @property
    def failed(self) -> bool:
        return self.result == "ERROR"

    @property
    def why(self) -> str:
        """Why it failed."""
        return (self.error or "no reason given")[:LONGEST_ERROR]

    def is_about(self, command: Command) -> bool:
        return command.kind == self.kind and self.id in {None, command.id}


class Heartbeat(Proven):
    counter: Annotated[int, Field(ge=1, le=LARGEST_COUNTER)] = Field(alias="Counter")
    applied: Annotated[list[Annotated[Applied, BeforeValidator(_named)]], Field(max_length=MOST_APPLIED)] = Field(
        alias="Applied"
    )
    csr: Annotated[str, Field(min_length=1, max_length=LARGEST_BODY)] | None = Field(None, alias="CSR")


# --- the Mac ---------------------------------------------------------------------------------------------------------


def canonical(body: Mapping[str, Any]) -> bytes:
    """What the Mac is over: all members but the Mac, whether we know them or not, sorted, without blanks, in UTF-8."""
    stated = {name: value for name, value in body.items() if name != MAC}
    return json.dumps(stated, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def mac(body: Mapping[str, Any], uid: str, root_secret: str) -> str:
    """Of a body as it was received. `root_secret`: hex."""
    key = HKDF(SHA256(), KEY_BYTES, salt=bytes.fromhex(uid), info=MAC_INFO).derive(bytes.fromhex(root_secret))
    return hmac.new(key, canonical(body), sha256).hexdigest()


def proves(body: Mapping[str, Any], uid: str, root_secret: str, stated: str) -> bool:
    """Was the body made by whoever knows the root secret? In constant time."""
    return hmac.compare_digest(mac(body, uid, root_secret).encode(), stated.encode())


# --- writing ---------------------------------------------------------------------------------------------------------


class Bootstrapped(TypedDict):
    ROTPublicUID: str
    State: str
    IsBlacklisted: bool
    SecurityHeartbeatInSec: int
    Commands: list[dict[str, object]]


class Beaten(TypedDict):
    Commands: list[dict[str, object]]


class Facts(TypedDict):
    """Payload of DEVICE_BOOTSTRAP_EVENT: these eight keys."""

    RotVersion: str | None
    SerialNumber: str | None
    Version: str | None
    DeviceSerialNumber: str | None
    IMEI: str | None
    DeviceProfileUID: str
    TypeNumber: str | None
    IsBlacklisted: bool


class Change(TypedDict):
    """Payload of DEVICE_PROPERTIES_CHANGE."""

    DesiredProperties: wire.PropertySet
    CurrentProperties: wire.PropertySet


class StateChange(TypedDict):
    """Payload of DEVICE_STATE_CHANGE."""

    State: str
    PreviousState: str


class Failure(TypedDict):
    """Payload of DEVICE_ERROR and DEVICE_ERRORS_EVENT."""

    Error: str


def state_of(module: Module) -> State:
    if module.bootstrapped_at is None:
        return State.UNKNOWN
    return State.ACTIVATED if module.activated else State.ALLOCATED


def write_command(command: Command) -> dict[str, object]:
    return {"Id": command.id, "Command": command.kind, **command.body}


def makes_pointless(kind: str, body: Mapping[str, object], older: Command) -> bool:
    """Need the older command not be told any more once this one is?

    A certificate's private key must not get lost: a renewal comes without it.
    """
    match kind, older.kind:
        case Kind.INSTALL_CERTIFICATE, Kind.INSTALL_CERTIFICATE:
            return PRIVATE_KEY in body or PRIVATE_KEY not in older.body
        case Kind.REMOVE_CERTIFICATE, Kind.INSTALL_CERTIFICATE | Kind.REMOVE_CERTIFICATE:
            return body["SerialNumber"] == older.body["SerialNumber"]
        case _:
            return kind == older.kind


def write_bootstrapped(module: Module, commands: Sequence[Command]) -> Bootstrapped:
    return {
        "ROTPublicUID": module.uid, "State": state_of(module), "IsBlacklisted": module.blacklisted,
        "SecurityHeartbeatInSec": interval(module.current),
        "Commands": [write_command(each) for each in commands],
    }  # fmt: skip


def write_beaten(commands: Sequence[Command]) -> Beaten:
    return {"Commands": [write_command(each) for each in commands]}


def write_facts(module: Module) -> Facts:
    return {
        "RotVersion": module.rot_version, "SerialNumber": module.serial, "Version": module.version,
        "DeviceSerialNumber": module.device_serial, "IMEI": module.imei,
        "DeviceProfileUID": module.profile or wire.UNATTRIBUTED, "TypeNumber": module.type_number,
        "IsBlacklisted": module.blacklisted,
    }  # fmt: skip


def write_change(module: Module) -> Change:
    return {
        "DesiredProperties": wire.write_desired(module.desired),
        "CurrentProperties": wire.write_current(module.current),
    }


def write_authorizations(properties: Properties) -> dict[str, object]:
    """Body of SET_AUTHORIZATIONS: the state of each that was ever set."""
    return {
        "Authorizations": [
            {"Name": name, "State": properties[name][0]} for name in wire.AUTHORIZATIONS if name in properties
        ]
    }


def write_rotation(mode: str, days: int | None) -> dict[str, object]:
    """Body of ROTATE_KEYSET."""
    return {"Type": mode} | ({} if days is None else {"Days": days})


def write_heartbeat(properties: Properties) -> dict[str, object]:
    """Body of SET_HEARTBEAT."""
    return {wire.HEARTBEAT: interval(properties)}
