"""Tencent IoT Hub over MQTT: names, proofs and topics. No I/O, no clock.

Contract: "Device Access: MQTT", section 7 of the reference; and what the vendor's SDKs send, where they differ from the
vendor's pages: each time marked.
"""

import hashlib
import hmac
import re
from base64 import b64decode
from binascii import Error as Base64Error
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from provisioning.core.login import CertificateRole, Means
from provisioning.model.admission import ConnackCodes
from provisioning.model.identity import Identity
from provisioning.model.refusal import Reason
from provisioning.protocols.tencent.wire import PROTOCOL

# --- Names and proofs ------------------------------------------------------------------------------------------------

PRODUCT_LENGTH: Final = 10
"""Of `{ProductId}{DeviceName}`: nothing stands between them."""
NAME: Final = re.compile(r"[A-Za-z0-9_]{10}[A-Za-z0-9:_-]{1,48}")
# `{ProductId}{DeviceName};{sdkappid};{connid};{expiry}`
USER: Final = re.compile(rf"({NAME.pattern});[0-9]+;[^;]*;([0-9]+)")
LONGEST_MOMENT: Final = 12
"""Digits of a moment in seconds, with some to spare: a longer number is one in milliseconds, or LONG_MAX [client]."""
METHODS: Final = {"hmacsha256": hashlib.sha256, "hmacsha1": hashlib.sha1}


@dataclass(frozen=True, slots=True)
class User:
    """A user name in the vendor's form."""

    name: str
    """`{ProductId}{DeviceName}`; the client id is the same."""
    expiry: str
    """An unsigned integer, without leading zeros."""

    def is_expired(self, now: int) -> bool:
        """`now`: seconds since the epoch."""
        return len(self.expiry) <= LONGEST_MOMENT and int(self.expiry or "0") < now


def read_identity(name: str) -> Identity | None:
    """`{ProductId}{DeviceName}`; None: nobody's."""
    if not NAME.fullmatch(name):
        return None
    return Identity(PROTOCOL, name[:PRODUCT_LENGTH], name[PRODUCT_LENGTH:])


def read_user(username: str) -> User | None:
    """None: not of this vendor's form."""
    found = USER.fullmatch(username)
    return User(found[1], found[2].lstrip("0")) if found else None


def key_of(psk: str) -> bytes:
    """What a psk is as a key: it is Base64, and taken as text where somebody stated one that is not."""
    try:
        return b64decode(psk, validate=True)
    except (Base64Error, ValueError):
        return psk.encode("utf-8", "surrogatepass")


def mqtt_password(username: str, psk: str, method: str = "hmacsha256") -> str:
    """`method`: hmacsha256 or hmacsha1. Raises: KeyError, for another one."""
    return f"{hmac.new(key_of(psk), username.encode(), METHODS[method]).hexdigest()};{method}"


@dataclass(frozen=True, slots=True)
class MqttClaim:
    """A CONNECT claims to be a device, and proves it with the device's psk or by its certificate."""

    identity: Identity
    username: str
    password: bytes = field(repr=False)

    @property
    def means(self) -> Means:
        return Means.DEVICE

    @property
    def certificate_role(self) -> CertificateRole:
        return CertificateRole.INSTEAD

    def proven_by(self, secret: str) -> bool:
        """Digits in any case; the method stands behind them."""
        given = self.password.lower()
        method = given.rpartition(b";")[2].decode("ascii", "replace")
        expected = mqtt_password(self.username, secret, method if method in METHODS else "hmacsha256")
        return hmac.compare_digest(given, expected.encode())


MALFORMED_ID: Final = ConnackCodes(2, 0x85)
NOT_PROVEN: Final = ConnackCodes(4, 0x86)
NOT_AUTHORIZED: Final = ConnackCodes(5, 0x87)
AWAY: Final = ConnackCodes(3, 0x88)

# One code for all that tells whether a device exists: who shows no certificate for a product that has them, too.
CONNACKS: Final[Mapping[Reason, ConnackCodes]] = {
    Reason.MALFORMED: MALFORMED_ID,
    Reason.MISSING: MALFORMED_ID,
    Reason.UNSUPPORTED_VERSION: ConnackCodes(1, 0x84),
    Reason.UNSUPPORTED_MEDIA_TYPE: MALFORMED_ID,
    Reason.TOO_LARGE: MALFORMED_ID,
    Reason.UNKNOWN: NOT_PROVEN,
    Reason.DEVICE_UNKNOWN: NOT_PROVEN,
    Reason.NOT_PROVEN: NOT_PROVEN,
    Reason.STALE: NOT_PROVEN,
    Reason.NOT_ALLOCATED: NOT_PROVEN,
    Reason.DUPLICATE: AWAY,
    Reason.DISABLED: ConnackCodes(5, 0x8A),
    Reason.ACTIVATION_OFF: NOT_AUTHORIZED,
    Reason.ACTIVATION_SPENT: NOT_AUTHORIZED,
    Reason.UNSUPPORTED: NOT_AUTHORIZED,
    Reason.CERTIFICATE_REQUIRED: NOT_PROVEN,
    Reason.LIMIT_REACHED: NOT_AUTHORIZED,
    Reason.RATE_LIMITED: ConnackCodes(5, 0x9F),
    Reason.BLOCKED: ConnackCodes(5, 0x9F),
    Reason.KICKED: AWAY,
    Reason.ILLEGAL_TRANSITION: AWAY,
    Reason.IN_USE: AWAY,
    Reason.UNAVAILABLE: AWAY,
    Reason.INTERNAL: AWAY,
}

# --- Topics ----------------------------------------------------------------------------------------------------------

GATEWAY: Final = "$gateway/operation"
# What stands behind `{pid}/{dn}/`, and what before `/{pid}/{dn}`.
PUBLISH_TAILS: Final = frozenset({"event", "data"})
SUBSCRIBE_TAILS: Final = frozenset({"control", "data"})
PUBLISH_HEADS: Final = frozenset({"$shadow/operation", "$ota/report"})
SUBSCRIBE_HEADS: Final = frozenset({"$shadow/operation/result", "$ota/update"})


@dataclass(frozen=True, slots=True)
class Topics:
    """The topics of a device, and of those that a gateway has online. All are exact: no wildcard is ever granted.

    The longest has some 90 bytes and five levels, well within the vendor's limits of 255 and ten. It is a rule and
    not a list: a device's list would cost more memory than the rest of its session.
    """

    own: str
    """`{pid}/{dn}`."""
    others: frozenset[str] = frozenset()

    def may_publish(self, topic: str) -> bool:
        return self._allows(topic, PUBLISH_TAILS, PUBLISH_HEADS, GATEWAY)

    def may_subscribe(self, topic_filter: str) -> bool:
        return self._allows(topic_filter, SUBSCRIBE_TAILS, SUBSCRIBE_HEADS, f"{GATEWAY}/result")

    def may_receive(self, topic: str) -> bool:
        return self.may_subscribe(topic)

    def _allows(self, topic: str, tails: frozenset[str], heads: frozenset[str], gateway: str) -> bool:
        if not topic.startswith("$"):
            name, _, tail = topic.rpartition("/")
            return tail in tails and (name == self.own or name in self.others)
        at = topic.rfind("/", 0, topic.rfind("/"))
        head, name = topic[:at], topic[at + 1 :]
        return (head in heads and (name == self.own or name in self.others)) or (head == gateway and name == self.own)

    def with_others(self, names: Iterable[str]) -> "Topics":
        return replace(self, others=self.others.union(names))

    def without_others(self, names: Iterable[str]) -> "Topics":
        return replace(self, others=self.others.difference(names))


def name_of(identity: Identity) -> str:
    """`{pid}/{dn}`, as topics have it."""
    return f"{identity.product}/{identity.device}"


def gateway_reply(identity: Identity) -> str:
    """The topic on which a gateway is answered."""
    return f"{GATEWAY}/result/{name_of(identity)}"
