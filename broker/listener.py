"""The listener: frames, limits, keeps time, admits, answers CONNACK; what comes later goes to the connection's seat.

Nothing reaches the embedded broker before it is admitted and well formed. A connection costs a small object and no task.
"""

import asyncio
import ssl
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Final

import structlog

from broker import packets
from broker.activation import Activation
from broker.deadlines import Deadlines
from broker.packets import Disconnect, Pingreq, Publish
from broker.properties import Malformed
from broker.seat import Broker, Seat
from broker.sessions import Sessions
from provisioning.model.admission import Admission, Notice, Rejection, Verdict
from provisioning.model.mqtt import Connect, Message, Peer
from provisioning.model.refusal import Reason

log = structlog.get_logger()

BACKLOG: Final = 4096
"""The default of 100 costs seconds when a thousand devices come at once."""
LINGER: Final = 5.0
"""Seconds for the last bytes to leave before a closing connection is cut."""
WRITE_BUFFER: Final = 262_144
MQTT5: Final = 5

Admit = Callable[[Connect, Peer], Verdict | Awaitable[Verdict]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Seconds, bytes and counts; see `config/gatehouse.toml`."""

    connect_timeout: float = 10.0
    max_connections: int = 100_000
    max_per_address: int = 20_000
    max_small_packet: int = 65_536
    max_packet: int = 1_048_576
    max_keepalive: int = 1_200
    default_keepalive: int = 300
    max_subscriptions: int = 500
    session_expiry: int = 86_400


@dataclass(slots=True)
class Totals:
    """What all connections of a listener did so far."""

    received: int = 0
    sent: int = 0


class Listener:
    """Accepts connections on one address and owns them."""

    def __init__(
        self,
        admit: Admit,
        broker: Broker,
        sessions: Sessions,
        limits: Limits,
        *,
        came: Callable[[int], None],
        went: Callable[[int], None],
        on_acknowledged: Callable[[Admission], None],
    ) -> None:
        self.admit = admit
        self.broker = broker
        self.sessions = sessions
        self.limits = limits
        self.came = came
        self.went = went
        self.on_acknowledged = on_acknowledged
        self.loop = asyncio.get_running_loop()
        self.deadlines = Deadlines(self.loop)
        self.connections: set[Connection] = set()
        self.per_address: Counter[str] = Counter()
        self.totals = Totals()
        self._server: asyncio.Server | None = None
        self._turned_away = 0
        self._told_at = 0.0

    async def start(self, host: str, port: int, ssl_context: ssl.SSLContext | None = None) -> None:
        """Raises: OSError, when the address cannot be bound."""
        self._server = await self.loop.create_server(
            lambda: Connection(self), host, port, backlog=BACKLOG, ssl=ssl_context, reuse_address=True
        )

    @property
    def port(self) -> int:
        """The port that is really bound."""
        assert self._server is not None
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    def has_room(self, address: str) -> bool:
        return len(self.connections) < self.limits.max_connections and (
            self.per_address[address] < self.limits.max_per_address
        )

    def turned_away(self, address: str) -> None:
        """Say that connections are refused for want of room; once in a second."""
        self._turned_away += 1
        if (now := self.loop.time()) - self._told_at >= 1:
            log.warning(
                "mqtt.overload", outcome="refused", reason="too_many_connections", address=address,
                connections=len(self.connections), refused=self._turned_away,
            )  # fmt: skip
            self._turned_away, self._told_at = 0, now

    async def stop(self) -> None:
        """Close the listener, then every connection; returns when all are gone."""
        if self._server is not None:
            self._server.close()
        for connection in list(self.connections):
            connection.close("shutdown", code=0x8B)
        deadline = self.loop.time() + 1.0
        while self.connections and self.loop.time() < deadline:
            await asyncio.sleep(0.01)
        for connection in list(self.connections):
            connection.abort()
        while self.connections:
            await asyncio.sleep(0)
        self.deadlines.close()


class Connection(asyncio.Protocol):
    """One client: first nobody, then an admission, then perhaps a seat."""

    __slots__ = (
        "_admission", "_buffer", "_connect", "_farewell", "_keepalive", "_listener", "_peer", "_reason", "_seat",
        "_seen", "_since", "_transport", "_verdict", "_writable", "slot",
    )  # fmt: skip

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._transport: asyncio.Transport | None = None
        self._peer = Peer("", 0)
        self._buffer = b""
        self._connect: Connect | None = None
        self._verdict: asyncio.Future[Verdict] | None = None
        self._admission: Admission | None = None
        self._seat: Seat | None = None
        self._farewell: tuple[Notice, str] | None = None
        self._keepalive = 0.0
        self._seen = 0.0
        self._since = 0.0
        self._reason = ""
        self._writable = True
        self.slot = 0

    # --- the transport ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        listener = self._listener
        self._transport = transport
        name = transport.get_extra_info("peername") or ("", 0)
        self._peer = Peer(str(name[0]), int(name[1]))
        room = listener.has_room(self._peer.address)
        listener.connections.add(self)
        listener.per_address[self._peer.address] += 1
        if not room:
            listener.turned_away(self._peer.address)
            self._reason = "too_many_connections"
            transport.abort()
            return
        transport.set_write_buffer_limits(high=WRITE_BUFFER)
        self._seen = self._since = listener.loop.time()
        listener.deadlines.set(self, self._seen + listener.limits.connect_timeout)

    def data_received(self, data: bytes) -> None:
        self._seen = self._listener.loop.time()
        self._buffer = self._buffer + data if self._buffer else data
        if self._verdict is None:
            self._read()

    def eof_received(self) -> bool:
        return False

    def pause_writing(self) -> None:
        """The device does not take what it is sent: take nothing from it either, so that answers cannot pile up."""
        self._writable = False
        if self._transport is not None and self._verdict is None:
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        self._writable = True
        if self._seat is not None:
            self._seat.writable()
        if self._transport is not None and self._verdict is None and not self._transport.is_closing():
            self._transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        listener = self._listener
        listener.deadlines.drop(self)
        listener.connections.discard(self)
        address = self._peer.address
        listener.per_address[address] -= 1
        if not listener.per_address[address]:
            del listener.per_address[address]
        self._buffer = b""
        if self._verdict is not None:
            self._verdict.cancel()
        if self._admission is not None:
            self._end(self._admission, self._reason or ("connection_lost" if exc else "closed_by_peer"))
        elif self._connect is None and self._reason != "too_many_connections":
            self._log_stranger()

    # --- reading ---

    def _read(self) -> None:
        """Serve every whole packet in the buffer."""
        buffer, at = self._buffer, 0
        limits = self._listener.limits
        try:
            while self._reason == "" and self._verdict is None:
                if at == len(buffer):
                    break
                if self._admission is None and buffer[at] != packets.CONNECT:
                    raise Malformed("the first packet is not CONNECT")
                # Only a PUBLISH has a reason to be large.
                large = buffer[at] >> 4 == packets.PUBLISH_TYPE
                bounds = packets.frame(buffer, at, limits.max_packet if large else limits.max_small_packet)
                if bounds is None or bounds[1] > len(buffer):
                    break
                first, body = buffer[at], buffer[bounds[0] : bounds[1]]
                at = bounds[1]
                if self._admission is not None:
                    self._serve(first, body)
                else:
                    self._on_connect(packets.read_connect(body))
        except packets.UnsupportedLevel as error:
            self.write(packets.write_connack(1, level=4))
            self.close(f"unsupported_version: level {error.level}")
        except packets.UnsupportedAuthentication:
            self._write_connack(5, 0x8C, level=MQTT5)
            self.close("unsupported_authentication")
        except packets.TooLarge as error:
            self.close(f"packet of {error.size} bytes", code=0x95)
        except Malformed as error:
            self.close(f"malformed: {error}", code=0x81)
        self._buffer = buffer[at:] if self._reason == "" else b""

    def _serve(self, first: int, body: bytes) -> None:
        assert self._connect is not None
        packet = packets.read(first, body, self._connect.level)
        match packet:
            case Pingreq():
                self.write(packets.PINGRESP)
            case Disconnect():
                # With code 4 an MQTT 5 client asks for its will all the same (3.14.2.1).
                self._leave(clean=packet.code != 0x04)  # noqa: PLR2004
            case _:
                self._listener.totals.received += isinstance(packet, Publish)
                if self._farewell is not None and isinstance(packet, Publish):
                    notice, reason = self._farewell
                    if packet.message.topic == notice.reply_topic:
                        self.close(reason)
                        return
                if self._seat is None:
                    self._seat = self._enter({})
                self._seat.receive(packet)

    # --- CONNECT ---

    def _on_connect(self, connect: Connect) -> None:
        self._connect = connect
        verdict = self._listener.admit(connect, self._peer)
        if isinstance(verdict, Admission | Rejection):
            self._decided(verdict)
            return
        self._verdict = asyncio.ensure_future(verdict)
        self._verdict.add_done_callback(self._on_verdict)
        assert self._transport is not None
        self._transport.pause_reading()

    def _on_verdict(self, verdict: asyncio.Future[Verdict]) -> None:
        self._verdict = None
        if verdict.cancelled() or self._transport is None or self._transport.is_closing():
            return
        self._decided(verdict.result())
        if self._reason == "" and self._writable:
            self._transport.resume_reading()
            self._read()

    def _decided(self, verdict: Verdict) -> None:
        assert self._connect is not None
        if isinstance(verdict, Rejection):
            self._write_connack(verdict.code, verdict.code5, level=self._connect.level)
            self.close(str(verdict.reason))
            return
        self._admission = verdict
        listener, connect = self._listener, self._connect
        listener.sessions.enter(verdict.identity, self)
        listener.came(verdict.device_id)
        asked = connect.keepalive or listener.limits.default_keepalive
        keepalive = min(asked, listener.limits.max_keepalive)
        self._keepalive = keepalive * 1.5  # 3.1.2.10
        listener.deadlines.set(self, self._seen + self._keepalive)
        present = not connect.clean and listener.broker.has_session(verdict)
        if connect.clean:
            listener.broker.discard(verdict)
        self._write_connack(0, 0, level=connect.level, session_present=present, keepalive=keepalive)
        if verdict.push is not None:
            self._seat = Activation(
                self, verdict, verdict.push, enter=self._enter, on_acknowledged=listener.on_acknowledged,
                max_filters=listener.limits.max_subscriptions,
            )  # fmt: skip
        elif connect.will is not None or not connect.clean or connect.session_expiry:
            self._seat = self._enter({})

    def _enter(self, granted: Mapping[str, int]) -> Seat:
        assert self._admission is not None and self._connect is not None  # noqa: PT018
        return self._listener.broker.seat(self, self._admission, self._connect, granted)

    def _write_connack(
        self, code: int, code5: int, *, level: int, session_present: bool = False, keepalive: int = 0
    ) -> None:
        if level < MQTT5:
            self.write(packets.write_connack(code, level=level, session_present=session_present))
            return
        properties: dict[int, int] = {}
        if code5 == 0:
            limits = self._listener.limits
            # Maximum QoS 1, the largest packet, no subscription identifiers, no shared subscriptions (3.2.2.3).
            properties = {0x24: 1, 0x27: limits.max_packet, 0x29: 0, 0x2A: 0}
            assert self._connect is not None
            if keepalive != self._connect.keepalive:
                properties[0x13] = keepalive
            if (self._connect.session_expiry or 0) > limits.session_expiry:
                properties[0x11] = limits.session_expiry
        self.write(packets.write_connack(code5, level=MQTT5, session_present=session_present, properties=properties))

    # --- the connection as its seat sees it ---

    @property
    def level(self) -> int:
        return self._connect.level if self._connect else 4

    @property
    def is_open(self) -> bool:
        return self._reason == "" and self._transport is not None and not self._transport.is_closing()

    @property
    def is_writable(self) -> bool:
        return self._writable

    @property
    def receive_maximum(self) -> int:
        return self._connect.receive_maximum if self._connect else 1

    def write(self, data: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    def publish(self, message: Message, packet_id: int | None = None, *, dup: bool = False) -> bool:
        data = packets.write_publish(message, level=self.level, packet_id=packet_id, dup=dup)
        if self._connect and self._connect.maximum_packet and len(data) > self._connect.maximum_packet:
            return False
        self._listener.totals.sent += 1
        self.write(data)
        return True

    def close(self, reason: str, *, code: int = 0x80) -> None:
        """End the connection: what was written still leaves. `code`: of DISCONNECT, which MQTT 5 alone has."""
        if self._reason or self._transport is None:
            return
        if self._admission is not None and self.level == MQTT5:
            self.write(packets.write_disconnect(code, level=MQTT5))
        self._reason = reason
        self._transport.close()
        if self._transport.get_write_buffer_size():
            self._listener.deadlines.set(self, self._listener.loop.time() + LINGER)
        else:
            self._listener.deadlines.drop(self)

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    # --- the connection as the sessions see it ---

    @property
    def device_id(self) -> int:
        return self._admission.device_id if self._admission else 0

    @property
    def epoch(self) -> int:
        return self._admission.epoch if self._admission else 0

    def taken_over(self) -> None:
        """The seat leaves at once: the newer connection must find the session free."""
        self._leave(clean=False, reason="taken_over", code=0x8E)

    def dismiss(self, reason: Reason) -> None:
        if self._admission is None or self._reason or self._farewell is not None:
            return
        notice = self._admission.conduct.farewell(self._admission.identity, reason)
        if notice is None:
            self.close(str(reason), code=0x98)
            return
        self._farewell = notice, str(reason)
        self.publish(notice.message)
        self._listener.deadlines.set(self, self._listener.loop.time() + notice.timeout)

    # --- time, and the end ---

    def expired(self, now: float) -> float | None:
        if self._reason:
            self.abort()
        elif self._farewell is not None:
            self.close(self._farewell[1], code=0x98)
        elif self._admission is None:
            if self._verdict is not None:  # the device has done its part; the database is slow
                return now + self._listener.limits.connect_timeout
            self.close("connect_timeout")
        elif (deadline := self._seen + self._keepalive) > now:
            return deadline
        else:
            self.close("keepalive_timeout", code=0x8D)
        return None

    def _leave(self, *, clean: bool, reason: str = "disconnected", code: int = 0) -> None:
        if self._seat is not None:
            seat, self._seat = self._seat, None
            seat.gone(clean=clean)
        if clean and self._transport is not None:
            self._reason = reason
            self._transport.close()
        else:
            self.close(reason, code=code or 0x80)

    def _end(self, admission: Admission, reason: str) -> None:
        if self._seat is not None:
            self._seat.gone(clean=False)
            self._seat = None
        if self._listener.sessions.leave(admission.identity, self):
            self._listener.went(admission.device_id)
        identity = admission.identity
        log.info(
            "mqtt.disconnect", protocol=identity.protocol, product=identity.product, device=identity.device,
            peer=str(self._peer), reason=reason, seconds=round(time.monotonic() - self._since, 3),
        )  # fmt: skip
        self._admission = None

    def _log_stranger(self) -> None:
        """Somebody came and never sent a CONNECT that could be read. A look at the port alone is not worth a line."""
        reason = self._reason or "closed_by_peer"
        write = log.debug if self._reason == "" else log.info
        write("mqtt.login", protocol="none", peer=str(self._peer), outcome="refused", reason=reason)
