"""MQTT as every protocol sees it, whatever version was on the wire."""

from dataclasses import dataclass, field
from typing import Final


@dataclass(frozen=True, slots=True)
class Peer:
    """Where a connection comes from."""

    address: str
    port: int
    tls: bool = False
    certificate: bytes = field(default=b"", repr=False)
    """What the peer has shown on this very connection, in DER; it chains to an authority that is trusted here."""

    def __str__(self) -> str:
        return f"[{self.address}]:{self.port}" if ":" in self.address else f"{self.address}:{self.port}"


NOBODY: Final = Peer("", 0)


@dataclass(frozen=True, slots=True)
class Message:
    """An application message: a PUBLISH without its handshake."""

    topic: str
    payload: bytes = field(repr=False)
    qos: int = 0
    retain: bool = False
    properties: bytes = b""
    """MQTT 5 properties that travel with the message, as they stood on the wire; empty for 3.1.1."""


@dataclass(frozen=True, slots=True)
class Connect:
    """A CONNECT packet that is well formed; nothing in it is proven."""

    level: int
    """Protocol level: 3 (MQTT 3.1), 4 (3.1.1) or 5."""
    client_id: str
    username: str | None
    password: bytes | None = field(repr=False)
    clean: bool
    """Clean session (3.1, 3.1.1) or clean start (5)."""
    keepalive: int
    """Seconds; 0: the client asks for none."""
    will: Message | None = None
    session_expiry: int | None = None
    """MQTT 5: seconds that the session outlives the connection; None: not stated."""
    receive_maximum: int = 65_535
    """MQTT 5: how many unacknowledged QoS 1 messages the client takes."""
    maximum_packet: int | None = None
    """MQTT 5: the largest packet that the client takes, in bytes."""

    def terms(self, *, wills: bool) -> "Connect":
        """What a session goes by, without who it claimed to be and how it proved that: these may be long."""
        return Connect(
            self.level, "", None, None, self.clean, self.keepalive, self.will if wills else None, self.session_expiry,
            self.receive_maximum, self.maximum_packet,
        )  # fmt: skip
