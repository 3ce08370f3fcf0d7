"""The answer to a CONNECT."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, Protocol

from provisioning.model.identity import Identity
from provisioning.model.mqtt import Message
from provisioning.model.refusal import Reason


class TopicRights(Protocol):
    """Which topics a session may use. Asked for each message: an answer costs well under a microsecond."""

    def may_publish(self, topic: str) -> bool: ...
    def may_subscribe(self, topic_filter: str) -> bool: ...
    def may_receive(self, topic: str) -> bool: ...


@dataclass(frozen=True, slots=True)
class Rights:
    """All topics below the session's prefixes, each ending with `/`."""

    prefixes: tuple[str, ...]
    reserved: frozenset[str] = frozenset()
    """Topics below the prefixes that only the service itself publishes to."""

    def may_publish(self, topic: str) -> bool:
        return topic.startswith(self.prefixes) and topic not in self.reserved

    def may_subscribe(self, topic_filter: str) -> bool:
        """Wildcards are fine below a prefix: a filter that reaches above it does not start with it."""
        return topic_filter.startswith(self.prefixes)

    def may_receive(self, topic: str) -> bool:
        return topic.startswith(self.prefixes)


@dataclass(frozen=True, slots=True)
class Notice:
    """Something the service tells a device on its own account; the device may answer on `reply_topic`."""

    message: Message
    reply_topic: str
    timeout: float
    """Seconds to wait for the answer."""


@dataclass(frozen=True, slots=True)
class Push:
    """A secret that must reach its device: pushed unasked, repeated until the device says that it has it."""

    message: Message
    reply_topic: str
    accepts: Callable[[bytes], bool]
    """Does this payload on `reply_topic` acknowledge the push?"""
    delay: float
    """Seconds from CONNACK to the first push."""
    interval: float
    """Seconds without an acknowledgement before the push is repeated."""
    repeats: int


@dataclass(frozen=True, slots=True)
class Answer:
    """What the service says to a message from a device."""

    reply: Message | None = None
    """To the session that published, once: by its subscription, or unasked with QoS 0. One SDK does not subscribe again
    when it has reconnected, and waits for its replies all the same.
    """
    close: bool = False
    """End the session, without a PUBACK: the protocol's way to refuse a message."""
    rights: Callable[[TopicRights], TopicRights] | None = None
    """What becomes of the session's rights. It loses its subscriptions to what it may no longer subscribe to."""


NOTHING: Final = Answer()


class Conduct(Protocol):
    """How one vendor's cloud behaves towards a session. Implemented by each protocol."""

    def on_message(self, identity: Identity, message: Message) -> Answer | Awaitable[Answer]:
        """A message that the session was allowed to publish.

        An answer that takes its time holds the session up: nothing more is read from it until the answer is there. It
        runs to its end when the session has gone meanwhile, and is dropped then. Whatever it may raise is its own
        affair: it must answer.
        """
        ...

    def on_forbidden(self, identity: Identity, message: Message) -> Answer:
        """A message on a topic that the session may not publish to."""
        ...

    def on_oversize(self, identity: Identity, message: Message) -> Answer:
        """A message with a payload above the protocol's own limit; its payload has been dropped."""
        ...

    def throttled(self, identity: Identity) -> Message | None:
        """What to tell a device that sends faster than its limit `up`; None: it is held up without a word."""
        ...

    def farewell(self, identity: Identity, reason: Reason) -> Notice | None:
        """What to tell a device whose session is about to be ended for `reason`."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionLimits:
    """What a vendor's cloud takes of its sessions and gives them, where that is less than the broker's own limits.

    One object serves all sessions of a protocol.
    """

    wills: bool = True
    """False: a will is accepted, and never published."""
    retained: bool = True
    """False: the retain flag of what a device publishes is ignored."""
    filters: int | None = None
    """Topic filters that one SUBSCRIBE may have; those beyond are refused."""
    up: int = 0
    """Messages per second from the device: what comes faster is read later, and nothing is lost. 0: no limit."""
    down: int = 0
    """Messages per second to the device: what comes faster waits in its queue. 0: no limit."""
    stored: int | None = None
    """Messages that are kept for a device that is away."""
    interval: float = 0.0
    """Seconds that must lie between two accepted CONNECTs of a device."""


UNLIMITED: Final = SessionLimits()


@dataclass(frozen=True, slots=True, kw_only=True)
class Admission:
    """A CONNECT is accepted."""

    identity: Identity
    device_id: int
    epoch: int
    """Which of its secrets the device has proven; see `DeviceCredential`."""
    rights: TopicRights
    conduct: Conduct
    max_payload: int
    """Bytes of payload that the protocol takes in one PUBLISH."""
    limits: SessionLimits = UNLIMITED
    certificate: tuple[int, str] | None = None
    """Authority id and serial number of the certificate that the session stands on."""
    push: Push | None = None
    once: bool = False
    """The push may not be asked for again once it is acknowledged."""


@dataclass(frozen=True, slots=True)
class ConnackCodes:
    """How a protocol says no."""

    v3: int
    """CONNACK return code of MQTT 3.1 and 3.1.1."""
    v5: int
    """CONNACK reason code of MQTT 5."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejection:
    """A CONNECT is turned down: send CONNACK with this code, then close."""

    reason: Reason
    code: int
    """CONNACK return code of MQTT 3.1.1."""
    code5: int
    """CONNACK reason code of MQTT 5."""


Verdict = Admission | Rejection
