"""EnOS over MQTT: CONNECT, topics and payloads, read, checked and written. No I/O, no clock, no storage.

Contract: "Establishing Connection with EnOS Cloud using the MQTT Protocol"; deviations of clients are marked.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from provisioning.core.login import CertificateRole, Means
from provisioning.model.admission import ConnackCodes
from provisioning.model.identity import Identity
from provisioning.model.refusal import Reason, Refusal
from provisioning.protocols.enos import wire

SHORTEST_PAYLOAD_ID: Final = re.compile(rb'"id"\s*:\s*"([^"\\]{1,64})"')
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
            raise wire.malformed(name)
        found[name] = value
    for name, value in found.items():
        if not value:
            raise wire.malformed(name)
    return found


def read_client_id(text: str) -> ClientId:
    """Raises: Refusal MALFORMED; UNSUPPORTED for securemode 4 (message integration)."""
    client_id, _, rest = text.partition("|")
    if not rest.endswith("|") or not wire.STORABLE.fullmatch(text):
        raise wire.malformed("clientId")
    found = _parameters(rest[:-1])
    read = ClientId(client_id, found["securemode"], found["signmethod"].lower(), found["timestamp"])
    if not 0 < read.length_counted <= LONGEST_CLIENT_ID:
        raise wire.malformed("clientId")
    if read.signmethod not in wire.DIGESTS:
        raise wire.malformed("signmethod")
    if read.securemode == INTEGRATION_MODE:
        raise Refusal(Reason.UNSUPPORTED, securemode=INTEGRATION_MODE)
    if read.securemode not in {DEVICE_SECRET_MODE, PRODUCT_SECRET_MODE}:
        raise wire.malformed("securemode")
    return read


def write_client_id(read: ClientId) -> str:
    return f"{read.client_id}|securemode={read.securemode},signmethod={read.signmethod},timestamp={read.timestamp}|"


def mqtt_password(read: ClientId, device_key: str, product_key: str, secret: str) -> str:
    """As the vendor's page has it: in upper case."""
    return wire.sign(
        read.signmethod, secret, clientId=read.client_id, deviceKey=device_key, productKey=product_key,
        timestamp=read.timestamp,
    ).upper()  # fmt: skip


def read_user(name: str) -> Identity | None:
    """`{deviceKey}&{productKey}`, split at the last `&`; None: nobody's."""
    device, _, product = name.rpartition("&")
    if not (wire.KEY.fullmatch(device) and wire.KEY.fullmatch(product)):
        return None
    return Identity(wire.PROTOCOL, product, device)


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
        return wire.same_digest(self.password, expected.lower())


NOT_AUTHORIZED: Final = ConnackCodes(5, 0x87)
MALFORMED_ID: Final = ConnackCodes(2, 0x85)

CONNACKS: Final[Mapping[Reason, ConnackCodes]] = {
    Reason.MALFORMED: MALFORMED_ID,
    Reason.MISSING: MALFORMED_ID,
    Reason.UNSUPPORTED_VERSION: ConnackCodes(1, 0x84),
    Reason.UNSUPPORTED_MEDIA_TYPE: MALFORMED_ID,
    Reason.TOO_LARGE: MALFORMED_ID,
    Reason.UNKNOWN: ConnackCodes(4, 0x86),
    Reason.DEVICE_UNKNOWN: ConnackCodes(4, 0x86),
    Reason.NOT_PROVEN: ConnackCodes(4, 0x86),
    Reason.STALE: ConnackCodes(4, 0x86),
    Reason.NOT_ALLOCATED: ConnackCodes(4, 0x86),
    Reason.DUPLICATE: ConnackCodes(3, 0x88),
    Reason.DISABLED: ConnackCodes(5, 0x8A),
    Reason.ACTIVATION_OFF: NOT_AUTHORIZED,
    Reason.ACTIVATION_SPENT: NOT_AUTHORIZED,
    Reason.UNSUPPORTED: NOT_AUTHORIZED,
    Reason.CERTIFICATE_REQUIRED: NOT_AUTHORIZED,
    Reason.LIMIT_REACHED: NOT_AUTHORIZED,
    Reason.RATE_LIMITED: ConnackCodes(5, 0x9F),
    Reason.BLOCKED: ConnackCodes(5, 0x9F),
    Reason.KICKED: ConnackCodes(3, 0x88),
    Reason.ILLEGAL_TRANSITION: ConnackCodes(3, 0x88),
    Reason.IN_USE: ConnackCodes(3, 0x88),
    Reason.UNAVAILABLE: ConnackCodes(3, 0x88),
    Reason.INTERNAL: ConnackCodes(3, 0x88),
}


SYS: Final = "/sys/"
SESSION: Final = "/ext/session/"
ACTIVATION: Final = "thing/activate/info"


@dataclass(frozen=True, slots=True)
class DeviceRights:
    """A device may publish and subscribe below `/sys/{own}` and `/ext/session/{own}`.

    Ten thousand devices that rest cost what is kept of each of them: one short text.
    """

    own: str
    """`{productKey}/{deviceKey}/`"""

    def _is_own(self, topic: str) -> bool:
        return (topic.startswith(SYS) and topic.startswith(self.own, len(SYS))) or (
            topic.startswith(SESSION) and topic.startswith(self.own, len(SESSION))
        )

    def may_publish(self, topic: str) -> bool:
        """Not where the service itself hands out secrets."""
        return self._is_own(topic) and not (
            topic.startswith(SESSION) and topic.endswith(ACTIVATION)
            and len(topic) == len(SESSION) + len(self.own) + len(ACTIVATION)
        )  # fmt: skip

    def may_subscribe(self, topic_filter: str) -> bool:
        """Wildcards are fine below a prefix: a filter that reaches above it does not start with it."""
        return self._is_own(topic_filter)

    def may_receive(self, topic: str) -> bool:
        return self._is_own(topic)


def rights(identity: Identity) -> DeviceRights:
    return DeviceRights(f"{identity.product}/{identity.device}/")


def below_sys(identity: Identity) -> str:
    """Below this are what the device tells, and what it is told."""
    return f"{SYS}{identity.product}/{identity.device}/"


def activation_topic(identity: Identity) -> str:
    return f"{SESSION}{identity.product}/{identity.device}/{ACTIVATION}"


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
    return isinstance(value, str) and wire.STORABLE.fullmatch(value) is not None


def write_reply(request_id: object, code: int, message: str = "") -> bytes:
    reply = {"id": request_id, "code": code, "data": ""}
    return compact(reply | {"message": message} if message else reply)


def answer_report(identity: Identity, topic: str, payload: bytes) -> bytes | None:
    """What the cloud replies to a message on one of the device's own topics; None: nothing."""
    prefix = below_sys(identity)
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
    return below_sys(identity) + command, compact(payload)
