"""Information about devices on the wire: periods that are asked for, and what replies look like. Pure.

Contract: sections 4.5 and 5.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final, NotRequired, TypedDict

from provisioning.core.pki import write_pem
from provisioning.model.module import Module
from provisioning.protocols.ublox import machine_wire, refusals, wire
from provisioning.store.lists import Page
from provisioning.store.notices import Activity, CloneEvent, Notification, Span, Suspicion
from provisioning.store.overview import Installed
from provisioning.store.usage import Days

OLDEST_NOTIFICATION: Final = timedelta(days=180)
OLDEST_USAGE: Final = timedelta(days=60)
GRACE: Final = timedelta(minutes=1)
"""That applications' clocks may be wrong, and requests on their way."""
SECOND: Final = timedelta(seconds=1)
USED: Final = (
    "SymmetricKey", "ProtectionParameters", "LocalDPR", "LocalC2C", "LocalC2CKeyPairing", "ZTPV1",
    "CertificateRenewals", "CertificateUpdates",
)  # fmt: skip
"""What usage is counted of, in the order of replies."""
CORE: Final = "CORE"
PROVISIONING: Final = "PROVISIONING"
ZTP: Final = "ZTP"
OPTIONS: Final = (CORE, PROVISIONING, ZTP)


def read_span(start: datetime, end: datetime | None, now: datetime, oldest: timedelta | None = None) -> Span:
    """From FromDate to ToDate, to now if there is none. Replies have whole seconds: the last one counts to its end.

    Raises:
        Refusal: MALFORMED with `FromDate` (it is to come, or longer ago than `oldest`) or `ToDate` (it is earlier).
    """
    if start > now + GRACE or (oldest is not None and start < now - oldest - GRACE):
        raise refusals.invalid("FromDate")
    if end is not None and end < start:
        raise refusals.invalid("ToDate")
    latest = now + GRACE if end is None else min(end, now + GRACE)
    return Span(start, latest.replace(microsecond=0) + SECOND)


def read_days(first: date, last: date | None, now: datetime) -> Days:
    """From FromDate to ToDate, to today (UTC) if there is none. Raises: Refusal, as `read_span`."""
    today = now.astimezone(UTC).date()
    if not today - OLDEST_USAGE <= first <= today:
        raise refusals.invalid("FromDate")
    if last is not None and last < first:
        raise refusals.invalid("ToDate")
    return Days(first, today if last is None else min(last, today))


class Rot(machine_wire.Facts):
    State: str
    BootstrapDate: str | None
    SealedDate: str | None
    LastSeen: str | None


class Provisioned(TypedDict):
    DesiredProperties: wire.PropertySet
    CurrentProperties: wire.PropertySet


class Ztp(TypedDict, total=False):
    """Empty where there is no certificate."""

    CertificateAuthorityName: str | None
    CertificateSerialNumber: str
    Status: str
    IssueDate: str
    ExpirationDate: str
    Certificate: str


@dataclass(frozen=True, slots=True)
class Infos:
    """What is asked for of some modules. `certificates`: by the ids of those that have one."""

    modules: Sequence[Module]
    certificates: Mapping[int, Installed]
    options: Sequence[str]


@dataclass(frozen=True, slots=True)
class Done:
    """What a module has done, and when it was last heard of."""

    page: Page[Activity]
    last_seen: datetime | None


class DeviceInfo(TypedDict):
    ROTPublicUID: str
    ROT: NotRequired[Rot]
    Provisioning: NotRequired[Provisioned]
    ZTP: NotRequired[Ztp]


class DeviceInfos(TypedDict):
    DeviceInfo: list[DeviceInfo]


class WrittenNotification(TypedDict):
    NotificationType: str
    ROTPublicUID: str
    Timestamp: str
    Payload: machine_wire.Facts | machine_wire.Change | machine_wire.StateChange | machine_wire.Failure


class Notifications(wire.Paging):
    Notifications: list[WrittenNotification]


class WrittenCloneEvent(TypedDict):
    ROTPublicUID: str
    EventDate: str
    Reason: str
    SourceIP: str
    IMEI: str | None


class CloneEvents(wire.Paging):
    ClonedEvents: list[WrittenCloneEvent]


class SuspiciousDevice(TypedDict):
    ROTPublicUID: str
    Reasons: list[str]
    DetectedDate: str
    RelatedROTPublicUIDs: list[str]


class SuspiciousDevices(wire.Paging):
    SuspiciousDevices: list[SuspiciousDevice]


class WrittenActivity(TypedDict):
    Timestamp: str
    Command: str
    Result: str
    Details: Mapping[str, str | int | bool | None]


class Activities(wire.Paging):
    LastSeen: str | None
    Activities: list[WrittenActivity]


class Usage(TypedDict):
    SymmetricKey: int
    ProtectionParameters: int
    LocalDPR: int
    LocalC2C: int
    LocalC2CKeyPairing: int
    ZTPV1: int
    CertificateRenewals: int
    CertificateUpdates: int


class Uids(wire.Paging):
    ROTPublicUIDs: list[str]


class ApiVersion(TypedDict):
    Version: str


def _time(at: datetime | None) -> str | None:
    return None if at is None else wire.write_time(at)


def write_rot(module: Module) -> Rot:
    return {
        **machine_wire.write_facts(module),
        "State": machine_wire.state_of(module),
        "BootstrapDate": _time(module.bootstrapped_at),
        "SealedDate": _time(module.sealed_at),
        "LastSeen": _time(module.last_seen),
    }


def write_ztp(certificate: Installed | None) -> Ztp:
    if certificate is None:
        return {}
    return {
        "CertificateAuthorityName": certificate.authority,
        "CertificateSerialNumber": certificate.serial,
        "Status": certificate.standing.upper(),
        "IssueDate": wire.write_time(certificate.not_before),
        "ExpirationDate": wire.write_time(certificate.not_after),
        "Certificate": write_pem(certificate.der),
    }


def write_info(module: Module, certificate: Installed | None, options: Sequence[str]) -> DeviceInfo:
    """The parts that `options` name."""
    info: DeviceInfo = {"ROTPublicUID": module.uid}
    if CORE in options:
        info["ROT"] = write_rot(module)
    if PROVISIONING in options:
        info["Provisioning"] = {
            "DesiredProperties": wire.write_desired(module.desired),
            "CurrentProperties": wire.write_current(module.current),
        }
    if ZTP in options:
        info["ZTP"] = write_ztp(certificate)
    return info


def write_infos(found: Infos) -> DeviceInfos:
    return {
        "DeviceInfo": [write_info(module, found.certificates.get(module.id), found.options) for module in found.modules]
    }


def _paging(page: Page[Any]) -> wire.Paging:
    return wire.write_paging(page.number, page.total)


def write_notifications(page: Page[Notification]) -> Notifications:
    return {
        "Notifications": [
            {
                "NotificationType": told.kind, "ROTPublicUID": told.uid, "Timestamp": wire.write_time(told.at),
                "Payload": told.payload,  # type: ignore[typeddict-item] # written as one of them
            }
            for told in page.records
        ],
        **_paging(page),
    }  # fmt: skip


def write_clone_events(page: Page[CloneEvent]) -> CloneEvents:
    return {
        "ClonedEvents": [
            {
                "ROTPublicUID": event.uid, "EventDate": wire.write_time(event.at), "Reason": event.reason,
                "SourceIP": event.source, "IMEI": event.imei,
            }
            for event in page.records
        ],
        **_paging(page),
    }  # fmt: skip


def write_suspicions(page: Page[Suspicion]) -> SuspiciousDevices:
    return {
        "SuspiciousDevices": [
            {
                "ROTPublicUID": found.uid, "Reasons": found.reasons, "DetectedDate": wire.write_time(found.detected_at),
                "RelatedROTPublicUIDs": found.related,
            }
            for found in page.records
        ],
        **_paging(page),
    }  # fmt: skip


def write_activities(found: Done) -> Activities:
    return {
        "LastSeen": _time(found.last_seen),
        "Activities": [
            {
                "Timestamp": wire.write_time(done.at), "Command": done.command, "Result": done.result,
                "Details": done.details,
            }
            for done in found.page.records
        ],
        **_paging(found.page),
    }  # fmt: skip


def write_usage(sums: Mapping[str, Mapping[str, int]]) -> dict[str, Usage]:
    """Of each device all counters."""
    return {
        wire.write_uid_as_key(uid): {name: counts.get(name, 0) for name in USED}  # type: ignore[misc] # all keys of it
        for uid, counts in sums.items()
    }


def write_uids(page: Page[str]) -> Uids:
    return {"ROTPublicUIDs": list(page.records), **_paging(page)}


def write_version(version: str) -> ApiVersion:
    return {"Version": version}
