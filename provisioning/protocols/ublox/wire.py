"""What all operations have in common on the wire: names, uids, times, pages. Pure. Contract: API 1.1.29, section 1."""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final, Required, TypedDict

PROTOCOL: Final = "ublox"
API_VERSION: Final = "1.1.29"
UNATTRIBUTED: Final = "UNATTRIBUTED DEVICE PROFILE"
"""Stands for the device profile of modules that have none sealed."""
PAGE_SIZE: Final = 100
UID_DIGITS: Final = 16
UID: Final = re.compile(r"[0-9A-Fa-f]{1,16}")
SUCCESS: Final = "Request Successful"

HEARTBEAT: Final = "SecurityHeartbeatInSec"
DEFAULT_HEARTBEAT: Final = 1_209_600
"""Seconds."""
CA_NAME: Final = "CAName"
ZTP: Final = "ZTPV1"
EVALUATION: Final = "Evaluation"
AUTHORIZATIONS: Final = ("LocalDPR", "LocalC2C", "LocalC2CKeyPairing", ZTP, EVALUATION)
"""In the order in which replies list them."""
ENABLED: Final = "ENABLED"
DISABLED: Final = "DISABLED"

Json = Mapping[str, object]


def read_uid(value: object) -> str:
    """A ROTPublicUID as clients send it: a string or a number, without leading zeros or with them.

    Raises:
        ValueError: it is none.
    """
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if isinstance(value, str) and UID.fullmatch(value):
        return value.lower().rjust(UID_DIGITS, "0")
    raise ValueError("must be up to 16 hexadecimal digits")


def write_uid_as_number(uid: str) -> str | int:
    """As the vendor's end-to-end replies have it: a number, leading zeros lost, where all digits are decimal."""
    return int(uid) if uid.isdecimal() else uid


def write_uid_as_key(uid: str) -> str:
    """As the keys of the usage reply: leading zeros lost where all digits are decimal."""
    return str(int(uid)) if uid.isdecimal() else uid


def write_time(at: datetime) -> str:
    """ISO 8601 in UTC, whole seconds."""
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def fold(tag: str) -> str:
    """The name of a tag as it is compared."""
    return tag.casefold()


class Paging(TypedDict):
    """What replies of lists end with."""

    PageNumber: int
    PageSize: int
    TotalRecords: int


class Said(TypedDict):
    """The reply of operations that return nothing."""

    message: Required[str]


class MarkedSaid(TypedDict):
    """The same, of operations whose key is `Message`."""

    Message: Required[str]


def write_paging(page: int, total: int) -> Paging:
    return {"PageNumber": page, "PageSize": PAGE_SIZE, "TotalRecords": total}


def write_nothing(_: object) -> Said:
    """The reply of an operation that has succeeded and returns nothing."""
    return {"message": SUCCESS}


def write_nothing_marked(_: object) -> MarkedSaid:
    return {"Message": SUCCESS}


Properties = Mapping[str, tuple[str | int, datetime]]


class Authorization(TypedDict, total=False):
    Name: Required[str]
    State: Required[str]
    ModifiedDate: str
    SyncDate: str


class NetworkParameter(TypedDict, total=False):
    Name: Required[str]
    Value: Required[int]
    ModifiedDate: str
    SyncDate: str


class Zerotouch(TypedDict, total=False):
    CAName: Required[str]
    ModifiedDate: str
    SyncDate: str


class PropertySet(TypedDict, total=False):
    """DesiredProperties (with ModifiedDate) or CurrentProperties (with SyncDate)."""

    Authorizations: list[Authorization]
    NetworkParameters: list[NetworkParameter]
    Zerotouch: Zerotouch


def write_properties(properties: Properties, date: str) -> PropertySet:
    """`date`: ModifiedDate of desired properties, SyncDate of current ones. What is not set is left out."""
    found: PropertySet = {}
    states = [
        {"Name": name, "State": str(properties[name][0]), date: write_time(properties[name][1])}
        for name in AUTHORIZATIONS if name in properties
    ]  # fmt: skip
    if states:
        found["Authorizations"] = states  # type: ignore[typeddict-item]
    if HEARTBEAT in properties:
        value, at = properties[HEARTBEAT]
        found["NetworkParameters"] = [{"Name": HEARTBEAT, "Value": int(value), date: write_time(at)}]  # type: ignore[misc]
    if CA_NAME in properties:
        name, at = properties[CA_NAME]
        found["Zerotouch"] = {"CAName": str(name), date: write_time(at)}  # type: ignore[misc]
    return found


def write_desired(properties: Properties) -> PropertySet:
    return write_properties(properties, "ModifiedDate")


def write_current(properties: Properties) -> PropertySet:
    return write_properties(properties, "SyncDate")
