"""What sits behind an admitted connection: nothing at first, an activation, the embedded broker, or another cluster."""

from collections.abc import Mapping
from typing import Final, Protocol

from broker.packets import Puback, Publish, Subscribe, Unsubscribe
from provisioning.model.admission import Admission
from provisioning.model.mqtt import Connect, Message

Served = Publish | Puback | Subscribe | Unsubscribe
"""The packets that a seat serves; the connection itself answers PINGREQ and DISCONNECT."""

FAILURE: Final = 0x80
"""The first return and reason code that means "no"."""


def refused_subscription(level: int) -> int:
    """The SUBACK code for a filter that the device may not have: Failure, or Not authorized in MQTT 5."""
    return 0x87 if level == 5 else 0x80  # noqa: PLR2004 - the number of the version


class Link(Protocol):
    """The connection as its seat sees it."""

    @property
    def level(self) -> int: ...
    @property
    def is_open(self) -> bool: ...
    @property
    def is_writable(self) -> bool:
        """False while the device does not take what was written already."""
        ...

    @property
    def receive_maximum(self) -> int: ...
    def write(self, data: bytes) -> None: ...
    def publish(self, message: Message, packet_id: int | None = None, *, dup: bool = False) -> bool:
        """False: the packet is larger than the client said that it takes, and was not written."""
        ...

    def hold(self) -> None:
        """Read nothing more from the device until `release`."""
        ...

    def release(self) -> None: ...
    def close(self, reason: str, *, code: int | None = 0x80) -> None:
        """End the connection; `code` tells an MQTT 5 client why."""
        ...


class Seat(Protocol):
    def receive(self, packet: Served) -> None:
        """A well-formed packet from the device."""
        ...

    def writable(self) -> None:
        """The device takes data again."""
        ...

    def gone(self, *, clean: bool, session_expiry: int | None = None) -> None:
        """The connection has ended; `clean`: by DISCONNECT, so without a will.

        `session_expiry`: seconds, in place of what CONNECT said; None: that stands.
        """
        ...


class Broker(Protocol):
    """Where sessions live that need more than an answer."""

    def has_session(self, admission: Admission) -> bool:
        """Is there a stored session of this identity?"""
        ...

    def discard(self, admission: Admission) -> None:
        """Forget the stored session of this identity."""
        ...

    def seat(self, link: Link, admission: Admission, connect: Connect, granted: Mapping[str, int]) -> Seat:
        """Take the connection in, with the subscriptions (filter -> QoS) that were granted to it already.

        A stored session goes on with it unless the client asked for a clean one.
        """
        ...
