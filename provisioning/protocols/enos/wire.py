"""EnOS on the wire: read, check, write. No I/O, no clock, no storage.

Contract: "Bootstrap Device" (API 2.4.0), "Get Device Connection Info", "Establishing Connection with EnOS Cloud using
the MQTT Protocol"; and what the vendor's own clients send, where they differ from these pages: each time marked.
"""

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from hmac import compare_digest
from typing import Any, Final
from zoneinfo import available_timezones

from provisioning.core.enrol import Description
from provisioning.core.login import CertificateRole, Means
from provisioning.model.identity import Identity
from provisioning.model.refusal import Reason, Refusal
from provisioning.model.registry import Device

PROTOCOL: Final = "enos"

# --- Signatures ------------------------------------------------------------------------------------------------------

# The vendor's page knows sha256 alone. "hmac…" are the names that SDKs give to the same plain digests: none is an HMAC.
DIGESTS: Final[Mapping[str, Callable[[bytes], Any]]] = {
    "sha256": hashlib.sha256,
    "hmacsha256": hashlib.sha256,
    "sha1": hashlib.sha1,
    "hmacsha1": hashlib.sha1,
    "md5": hashlib.md5,
    "hmacmd5": hashlib.md5,
}


def sign(method: str, secret: str, **params: str) -> str:
    """Lower-case hex digest of every name and value, sorted by name, and then the secret.

    One recipe for MQTT passwords, DPS signatures, HTTP logins and sub-devices; they differ in the names only.
    """
    text = "".join(f"{name}{params[name]}" for name in sorted(params))
    digest: str = DIGESTS[method](f"{text}{secret}".encode()).hexdigest()
    return digest


def same_digest(given: bytes, expected: str) -> bool:
    """In constant time. Case is the client's affair: the page says upper, most clients send lower."""
    return compare_digest(given.lower(), expected.encode())


# --- Fields ----------------------------------------------------------------------------------------------------------

KEY: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}")
SERIAL: Final = re.compile(r"[A-Za-z0-9:_.-]{1,64}")
GROUP_ID: Final = re.compile(r"[^\x00-\x1f\x7f\ud800-\udfff]{1,64}")
TEXT: Final = re.compile(r"[^\x00\ud800-\udfff]{1,64}")
STORABLE: Final = re.compile(r"[^\x00\ud800-\udfff]*")
HEX_SHA256: Final = re.compile(r"[0-9A-Fa-f]{64}")
MILLISECONDS: Final = re.compile(r"[0-9]{13}")
FIRST_MOMENT, LAST_MOMENT = 10**12, 10**13 - 1
LOCALE: Final = re.compile(r"[A-Za-z]{2,3}([_-][A-Za-z0-9]{2,8}){0,3}")
OFFSET: Final = re.compile(r"[+-](0[0-9]|1[0-4]):[0-5][0-9]")
MOST_LOCALES: Final = 16
SHORTEST_PAYLOAD_ID: Final = re.compile(rb'"id"\s*:\s*"([^"\\]{1,64})"')


def malformed(name: str) -> Refusal:
    return Refusal(Reason.MALFORMED, field=name)


def _object(value: object, name: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise malformed(name)
    return value


def _text(fields: Mapping[str, Any], name: str, form: re.Pattern[str]) -> str:
    value = fields.get(name)
    if not isinstance(value, str) or not form.fullmatch(value):
        raise malformed(name)
    return value


def _timestamp(fields: Mapping[str, Any], name: str) -> str:
    """Thirteen digits, as number or text: with any other length, serial number and timestamp could trade digits."""
    value = fields.get(name)
    if isinstance(value, int) and FIRST_MOMENT <= value <= LAST_MOMENT:
        return str(value)
    return _text(fields, name, MILLISECONDS)


@cache
def _zones() -> frozenset[str]:
    return frozenset(available_timezones())


def is_timezone(value: str) -> bool:
    """`+08:00` or an IANA name."""
    return bool(OFFSET.fullmatch(value)) or value in _zones()


def read_name(value: object, name: str) -> tuple[str, dict[str, str]]:
    """A StringI18n: `{"defaultValue": …, "i18nValue": {locale: …}}`; a plain string stands for its default."""
    if isinstance(value, str):
        value = {"defaultValue": value}
    fields = _object(value, name)
    try:
        default = _text(fields, "defaultValue", TEXT)
    except Refusal:
        raise malformed(name) from None
    local = fields.get("i18nValue")
    if local is None:
        return default, {}
    if not isinstance(local, dict) or len(local) > MOST_LOCALES:
        raise malformed(name)
    for locale, text in local.items():
        if not (LOCALE.fullmatch(locale) and isinstance(text, str) and TEXT.fullmatch(text)):
            raise malformed(name)
    return default, dict(local)


# --- Bootstrap and get/conn ------------------------------------------------------------------------------------------


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
    protocol: str = PROTOCOL

    def proven_by(self, secret: str) -> bool:
        return same_digest(self.signature.encode(), sign("sha256", secret, sn=self.serial, timestamp=self.timestamp))

    def is_fresh(self, seconds: int) -> bool:
        return seconds == 0 or abs(self.now - int(self.timestamp)) <= seconds * 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Bootstrap(DpsProof):
    """A device claims to be a serial number of a registration group."""

    group: str
    description: Description


def read_bootstrap(body: object, now: int) -> Bootstrap:
    """Raises: Refusal MALFORMED with the field."""
    fields = _object(body, "body")
    alias = fields.get("deviceId")  # the name that a real client sends
    serial = _text(fields, "deviceSn" if alias is None or fields.get("deviceSn") is not None else "deviceId", SERIAL)
    if alias is not None and alias != serial:
        raise malformed("deviceId")
    group = _text(fields, "groupId", GROUP_ID)
    _sign_method(fields, "dpsSignMethod")
    timestamp = _timestamp(fields, "dpsSignTimestamp")
    signature = _text(fields, "dpsSign", HEX_SHA256)
    name, name_i18n = read_name(fields.get("deviceName"), "deviceName")
    timezone = fields.get("timezone")
    if not isinstance(timezone, str) or not is_timezone(timezone):
        raise malformed("timezone")
    return Bootstrap(
        serial=serial, timestamp=timestamp, signature=signature, now=now, group=group,
        description=Description(name=name, name_i18n=name_i18n, timezone=timezone),
    )  # fmt: skip


def _sign_method(fields: Mapping[str, Any], name: str) -> None:
    method = fields.get(name)
    if not isinstance(method, str) or method.lower() != "sha256":
        raise malformed(name)


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
    fields = _object(value, name)
    try:
        return DpsProof(
            serial=_text(fields, "sn", SERIAL), timestamp=_timestamp(fields, "timestamp"),
            signature=_text(fields, "sign", HEX_SHA256), now=now,
        )  # fmt: skip
    except Refusal as refusal:
        raise malformed(f"{name}.{refusal.detail['field']}") from None


def read_get_conn(body: object, now: int) -> GetConn:
    """Raises: Refusal MALFORMED with the field."""
    fields = _object(body, "body")
    caller = _proof(fields.get("self"), "self", now)
    if fields.get("signMethod") is not None:
        _sign_method(fields, "signMethod")
    if fields.get("sub") is None:
        return GetConn(caller=caller)
    sub = _object(fields["sub"], "sub")
    virtual = sub.get("createSubSnFromGw", True)
    if not isinstance(virtual, bool):
        raise malformed("sub.createSubSnFromGw")
    branch = sub.get("branch")
    if virtual and branch is not None:
        if not isinstance(branch, int) or isinstance(branch, bool) or not 0 <= branch < 2**31:
            raise malformed("sub.branch")
        conn = GetConn(caller=caller, branch=branch)
        if not SERIAL.fullmatch(conn.branch_serial):
            raise malformed("sub.branch")
        return conn
    if virtual and "sn" not in sub:
        raise malformed("sub.branch")
    return GetConn(caller=caller, sub=_proof(sub, "sub", now))


def write_triple(device: Device, murl: str, hurl: str) -> dict[str, str]:
    """The bare object, without an envelope. Clients hand `murl` to their MQTT library unchanged."""
    return {"murl": murl, "hurl": hurl, "pk": device.product, "dk": device.key, "ds": device.secret}


# --- DPS errors ------------------------------------------------------------------------------------------------------


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


# --- CONNECT ---------------------------------------------------------------------------------------------------------

LONGEST_CLIENT_ID: Final = 64
PARAMETERS: Final = ("securemode", "signmethod", "timestamp")
DEVICE_SECRET_MODE, PRODUCT_SECRET_MODE, INTEGRATION_MODE = "2", "3", "4"


@dataclass(frozen=True, slots=True)
class ClientId:
    """`{clientId}|securemode={2|3},signmethod={m},timestamp={t}|`"""

    client_id: str
    securemode: str
    signmethod: str
    timestamp: str

    @property
    def length_counted(self) -> int:
        """Characters that count against the limit: one SDK appends a block in braces that the limit does not know."""
        brace = self.client_id.find("{")
        return brace if brace >= 0 and self.client_id.endswith("}") else len(self.client_id)


def _parameters(text: str) -> dict[str, str]:
    """Those of PARAMETERS, in whatever order; other pairs are ignored. Blanks around names and values do not count."""
    found = dict.fromkeys(PARAMETERS, "")
    for pair in text.split(","):
        name, _, value = pair.partition("=")
        name, value = name.strip().lower(), value.strip()
        if name not in found:
            continue
        if found[name] not in {"", value}:
            raise malformed(name)
        found[name] = value
    for name, value in found.items():
        if not value:
            raise malformed(name)
    return found


def read_client_id(text: str) -> ClientId:
    """Raises: Refusal MALFORMED; UNSUPPORTED for securemode 4 (message integration)."""
    client_id, _, rest = text.partition("|")
    if not rest.endswith("|") or not STORABLE.fullmatch(text):
        raise malformed("clientId")
    found = _parameters(rest[:-1])
    read = ClientId(client_id, found["securemode"], found["signmethod"].lower(), found["timestamp"])
    if not 0 < read.length_counted <= LONGEST_CLIENT_ID:
        raise malformed("clientId")
    if read.signmethod not in DIGESTS:
        raise malformed("signmethod")
    if read.securemode == INTEGRATION_MODE:
        raise Refusal(Reason.UNSUPPORTED, securemode=INTEGRATION_MODE)
    if read.securemode not in {DEVICE_SECRET_MODE, PRODUCT_SECRET_MODE}:
        raise malformed("securemode")
    return read


def write_client_id(read: ClientId) -> str:
    return f"{read.client_id}|securemode={read.securemode},signmethod={read.signmethod},timestamp={read.timestamp}|"


def mqtt_password(read: ClientId, device_key: str, product_key: str, secret: str) -> str:
    """As the vendor's page has it: in upper case."""
    return sign(
        read.signmethod, secret, clientId=read.client_id, deviceKey=device_key, productKey=product_key,
        timestamp=read.timestamp,
    ).upper()  # fmt: skip


def read_user(name: str) -> Identity | None:
    """`{deviceKey}&{productKey}`, split at the last `&`; None: nobody's."""
    device, _, product = name.rpartition("&")
    if not (KEY.fullmatch(device) and KEY.fullmatch(product)):
        return None
    return Identity(PROTOCOL, product, device)


@dataclass(frozen=True, slots=True)
class MqttClaim:
    """A CONNECT claims to be a device, and proves it with the device's secret or the product's."""

    identity: Identity
    client_id: ClientId
    password: bytes = field(repr=False)

    @property
    def means(self) -> Means:
        return Means.DEVICE if self.client_id.securemode == DEVICE_SECRET_MODE else Means.PRODUCT

    @property
    def certificate_role(self) -> CertificateRole:
        return CertificateRole.BESIDE

    def proven_by(self, secret: str) -> bool:
        expected = mqtt_password(self.client_id, self.identity.device, self.identity.product, secret)
        return same_digest(self.password, expected.lower())


@dataclass(frozen=True, slots=True)
class Codes:
    v3: int
    v5: int


NOT_AUTHORIZED: Final = Codes(5, 0x87)
MALFORMED_ID: Final = Codes(2, 0x85)

CONNACKS: Final[Mapping[Reason, Codes]] = {
    Reason.MALFORMED: MALFORMED_ID,
    Reason.MISSING: MALFORMED_ID,
    Reason.UNSUPPORTED_VERSION: Codes(1, 0x84),
    Reason.UNSUPPORTED_MEDIA_TYPE: MALFORMED_ID,
    Reason.TOO_LARGE: MALFORMED_ID,
    Reason.UNKNOWN: Codes(4, 0x86),
    Reason.DEVICE_UNKNOWN: Codes(4, 0x86),
    Reason.NOT_PROVEN: Codes(4, 0x86),
    Reason.STALE: Codes(4, 0x86),
    Reason.NOT_ALLOCATED: Codes(4, 0x86),
    Reason.DUPLICATE: Codes(3, 0x88),
    Reason.DISABLED: Codes(5, 0x8A),
    Reason.ACTIVATION_OFF: NOT_AUTHORIZED,
    Reason.ACTIVATION_SPENT: NOT_AUTHORIZED,
    Reason.UNSUPPORTED: NOT_AUTHORIZED,
    Reason.CERTIFICATE_REQUIRED: NOT_AUTHORIZED,
    Reason.LIMIT_REACHED: NOT_AUTHORIZED,
    Reason.RATE_LIMITED: Codes(5, 0x9F),
    Reason.BLOCKED: Codes(5, 0x9F),
    Reason.KICKED: Codes(3, 0x88),
    Reason.ILLEGAL_TRANSITION: Codes(3, 0x88),
    Reason.IN_USE: Codes(3, 0x88),
    Reason.UNAVAILABLE: Codes(3, 0x88),
    Reason.INTERNAL: Codes(3, 0x88),
}

# --- Topics and messages ---------------------------------------------------------------------------------------------


def prefixes(identity: Identity) -> tuple[str, str]:
    """Below these a device may publish and subscribe."""
    return f"/sys/{identity.product}/{identity.device}/", f"/ext/session/{identity.product}/{identity.device}/"


def activation_topic(identity: Identity) -> str:
    return f"/ext/session/{identity.product}/{identity.device}/thing/activate/info"


def reply_to(topic: str) -> str:
    return f"{topic}_reply"


def compact(value: object) -> bytes:
    """JSON without a blank: the C SDK takes the character after `:` as the first of the value."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def write_activation(identity: Identity, asset: str, secret: str) -> bytes:
    """The payload that hands a device its secret. The id is text: one SDK fails on a number."""
    return compact(
        {
            "id": "1",
            "version": "1.0",
            "method": "thing.activate.info",
            "params": {
                "assetId": asset,
                "productKey": identity.product,
                "deviceKey": identity.device,
                "deviceSecret": secret,
            },
        }
    )


def acknowledges(payload: bytes) -> bool:
    """Does a reply say 200? Some clients write their codes as text."""
    try:
        fields = json.loads(payload)
    except (ValueError, RecursionError):
        return False
    return isinstance(fields, dict) and fields.get("code") in (200, "200")


SUCCESS: Final = (200, "")
TOO_LARGE: Final = (1008, "Msg size is too large, discard the message")
FORBIDDEN: Final = (1009, "Publish to topic with no write permission")
FORMAT_ERROR: Final = (1220, "Payload format error")
EMPTY: Final = (1251, "Payload is empty")
METHODS_DIFFER: Final = (1260, "Methods not consistent")

# What a device reports and the cloud acknowledges; everything below `/sys/{pk}/{dk}/`.
REPORTS: Final = re.compile(r"thing/(measurepoint/(post|resume)(/batch)?|event/[^/]+/post)")


def peek_id(payload: bytes) -> str:
    """The id of a request that need not be whole; empty when there is none to be seen."""
    found = SHORTEST_PAYLOAD_ID.search(payload[:512])
    return found[1].decode("utf-8", "replace") if found else ""


def _is_text(value: object) -> bool:
    return isinstance(value, str) and STORABLE.fullmatch(value) is not None


def write_reply(request_id: object, code: int, message: str = "") -> bytes:
    reply = {"id": request_id, "code": code, "data": ""}
    return compact(reply | {"message": message} if message else reply)


def answer_report(identity: Identity, topic: str, payload: bytes) -> bytes | None:
    """What the cloud replies to a message on one of the device's own topics; None: nothing."""
    prefix = prefixes(identity)[0]
    below = topic[len(prefix) :]
    if not (topic.startswith(prefix) and REPORTS.fullmatch(below)):
        return None
    return write_reply(*_judge_report(below.replace("/", "."), payload))


EVENTS: Final = "thing.event."


def _judge_report(method: str, payload: bytes) -> tuple[str, int, str]:
    """The request's id, and the code and message that it deserves."""
    if not payload:
        return "", *EMPTY
    try:
        request = json.loads(payload)
    except (ValueError, RecursionError):
        return peek_id(payload), *FORMAT_ERROR
    if not (isinstance(request, dict) and _is_text(request.get("id")) and isinstance(request.get("method"), str)):
        return peek_id(payload), *FORMAT_ERROR
    if not isinstance(request.get("params"), dict | list):
        return request["id"], *FORMAT_ERROR
    return request["id"], *(SUCCESS if _is_same(request["method"], method) else METHODS_DIFFER)


def _is_same(given: str, method: str) -> bool:
    """An event's method need only begin right: the Python SDK names it `thing.event.%s.post` and then the event."""
    return given == method or (given.startswith(EVENTS) and method.startswith(EVENTS))


COMMANDS: Final[Mapping[Reason, str]] = {Reason.DISABLED: "thing/disable"}
"""What a device is told before its session ends, by the reason."""


def write_command(identity: Identity, command: str) -> tuple[str, bytes]:
    """Topic and payload of a command from the cloud."""
    payload = {"id": "1", "version": "1.0", "method": command.replace("/", "."), "params": {}}
    return prefixes(identity)[0] + command, compact(payload)
