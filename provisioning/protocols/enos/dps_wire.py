"""EnOS over HTTP: bootstrap and connection info, read, checked and answered. No I/O, no clock, no storage.

Contract: "Bootstrap Device" (API 2.4.0), "Get Device Connection Info"; deviations of clients are marked.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from provisioning.core.enrol import Description
from provisioning.model.refusal import Reason, Refusal
from provisioning.model.registry import Device
from provisioning.protocols.enos import wire


@dataclass(frozen=True, slots=True, kw_only=True)
class DpsProof:
    """A serial number, a moment, and a signature over both with the password of the registration group.

    The page names the inputs only; real clients prove the formula: `sn`, serial, `timestamp`, timestamp, password.
    """

    serial: str
    timestamp: str
    signature: str = field(repr=False)
    now: int
    """Milliseconds since the epoch when the request came."""
    protocol: str = wire.PROTOCOL

    def proven_by(self, secret: str) -> bool:
        return wire.same_digest(
            self.signature.encode(), wire.sign("sha256", secret, sn=self.serial, timestamp=self.timestamp)
        )

    def is_fresh(self, seconds: int) -> bool:
        return seconds == 0 or abs(self.now - int(self.timestamp)) <= seconds * 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Bootstrap(DpsProof):
    """A device claims to be a serial number of a registration group."""

    group: str
    description: Description


def read_bootstrap(body: object, now: int) -> Bootstrap:
    """Raises: Refusal MALFORMED with the field."""
    fields = wire.read_object(body, "body")
    alias = fields.get("deviceId")  # the name that a real client sends
    serial = wire.read_text(
        fields, "deviceSn" if alias is None or fields.get("deviceSn") is not None else "deviceId", wire.SERIAL
    )
    if alias is not None and alias != serial:
        raise wire.malformed("deviceId")
    group = wire.read_text(fields, "groupId", wire.GROUP_ID)
    _sign_method(fields, "dpsSignMethod")
    timestamp = wire.read_timestamp(fields, "dpsSignTimestamp")
    signature = wire.read_text(fields, "dpsSign", wire.HEX_SHA256)
    name, name_i18n = wire.read_name(fields.get("deviceName"), "deviceName")
    timezone = fields.get("timezone")
    if not isinstance(timezone, str) or not wire.is_timezone(timezone):
        raise wire.malformed("timezone")
    return Bootstrap(
        serial=serial, timestamp=timestamp, signature=signature, now=now, group=group,
        description=Description(name=name, name_i18n=name_i18n, timezone=timezone),
    )  # fmt: skip


def _sign_method(fields: Mapping[str, Any], name: str) -> None:
    method = fields.get(name)
    if not isinstance(method, str) or method.lower() != "sha256":
        raise wire.malformed(name)


@dataclass(frozen=True, slots=True, kw_only=True)
class GetConn:
    """A registered device asks for its triple, or a gateway for the triple of a device behind it."""

    caller: DpsProof
    branch: int | None = None
    """Which virtual device of the gateway."""
    sub: DpsProof | None = None
    """Which real device behind the gateway."""

    @property
    def branch_serial(self) -> str:
        return f"{self.caller.serial}-{self.branch}"


def _proof(value: object, name: str, now: int) -> DpsProof:
    fields = wire.read_object(value, name)
    try:
        return DpsProof(
            serial=wire.read_text(fields, "sn", wire.SERIAL), timestamp=wire.read_timestamp(fields, "timestamp"),
            signature=wire.read_text(fields, "sign", wire.HEX_SHA256), now=now,
        )  # fmt: skip
    except Refusal as refusal:
        raise wire.malformed(f"{name}.{refusal.detail['field']}") from None


def read_get_conn(body: object, now: int) -> GetConn:
    """Raises: Refusal MALFORMED with the field."""
    fields = wire.read_object(body, "body")
    caller = _proof(fields.get("self"), "self", now)
    if fields.get("signMethod") is not None:
        _sign_method(fields, "signMethod")
    if fields.get("sub") is None:
        return GetConn(caller=caller)
    sub = wire.read_object(fields["sub"], "sub")
    virtual = sub.get("createSubSnFromGw", True)
    if not isinstance(virtual, bool):
        raise wire.malformed("sub.createSubSnFromGw")
    branch = sub.get("branch")
    if virtual and branch is not None:
        if not isinstance(branch, int) or isinstance(branch, bool) or not 0 <= branch < 2**31:
            raise wire.malformed("sub.branch")
        conn = GetConn(caller=caller, branch=branch)
        if not wire.SERIAL.fullmatch(conn.branch_serial):
            raise wire.malformed("sub.branch")
        return conn
    if virtual and "sn" not in sub:
        raise wire.malformed("sub.branch")
    return GetConn(caller=caller, sub=_proof(sub, "sub", now))


def write_triple(device: Device, murl: str, hurl: str) -> dict[str, str]:
    """The bare object, without an envelope. Clients hand `murl` to their MQTT library unchanged."""
    return {"murl": murl, "hurl": hurl, "pk": device.product, "dk": device.key, "ds": device.secret}


@dataclass(frozen=True, slots=True)
class Row:
    code: int
    words: str
    status: int


INVALID: Final = Row(99400, "Invalid Argument {field}:{field} is missing", 400)
INTERNAL: Final = Row(99500, "Internal error", 500)
UNAUTHORIZED: Final = Row(35603, "Unauthorized to access the resource", 401)

REFUSALS: Final[Mapping[Reason, Row]] = {
    Reason.MALFORMED: INVALID,
    Reason.MISSING: INVALID,
    Reason.UNSUPPORTED_VERSION: INVALID,
    Reason.UNSUPPORTED_MEDIA_TYPE: Row(INVALID.code, INVALID.words, 415),
    Reason.TOO_LARGE: Row(INVALID.code, INVALID.words, 413),
    Reason.UNKNOWN: Row(35404, "Group/sn not found", 404),
    Reason.DEVICE_UNKNOWN: Row(35404, "Group/sn not found", 404),
    Reason.NOT_PROVEN: UNAUTHORIZED,
    Reason.STALE: UNAUTHORIZED,
    Reason.NOT_ALLOCATED: Row(10000, "[{serial}] not allocated", 403),
    Reason.DUPLICATE: Row(35601, "Illegal deviceSn, deviceSn duplicated", 409),
    Reason.DISABLED: UNAUTHORIZED,
    Reason.ACTIVATION_OFF: UNAUTHORIZED,
    Reason.ACTIVATION_SPENT: UNAUTHORIZED,
    Reason.UNSUPPORTED: INVALID,
    Reason.CERTIFICATE_REQUIRED: UNAUTHORIZED,
    Reason.LIMIT_REACHED: UNAUTHORIZED,
    Reason.RATE_LIMITED: Row(INTERNAL.code, INTERNAL.words, 429),
    Reason.BLOCKED: Row(INTERNAL.code, INTERNAL.words, 429),
    Reason.KICKED: INTERNAL,
    Reason.ILLEGAL_TRANSITION: INTERNAL,
    Reason.IN_USE: INTERNAL,
    Reason.UNAVAILABLE: Row(INTERNAL.code, INTERNAL.words, 503),
    Reason.INTERNAL: INTERNAL,
}


def write_error(refusal: Refusal, request_id: str) -> tuple[int, dict[str, object]]:
    """HTTP status and body. The body never has a `ds`: clients tell success by it."""
    row = REFUSALS[refusal.reason]
    words = row.words.format_map({"field": "body", "serial": ""} | refusal.detail)
    return row.status, {"code": row.code, "msg": words, "requestId": request_id, "data": None}
