"""One connection: first nobody, then an admission, then perhaps a seat. It frames, limits, keeps time and writes.

Nothing reaches what is behind it before it is admitted and well formed. It costs a small object and no task.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from time import perf_counter
from typing import TYPE_CHECKING, Final, cast

import structlog

from broker import pace, packets
from broker.activation import Activation
from broker.packets import Disconnect, Pingreq, Publish
from broker.properties import Malformed
from broker.seat import Seat
from broker.topics import is_served
from provisioning.model.admission import Admission, Notice, Rejection, Verdict
from provisioning.model.mqtt import Connect, Message, Peer
from provisioning.model.refusal import Reason

if TYPE_CHECKING:
    from broker.listener import Listener

log = structlog.get_logger()

LINGER: Final = 5.0
"""Seconds for the last bytes to leave before a closing connection is cut."""
WRITE_BUFFER: Final = 65_536
"""Bytes that wait for a device before nothing more is read from it."""
TURN: Final = 256
TURN_SECONDS: Final = 0.005
"""Packets of one connection, and the time for them, before the others have their turn."""
LAST_SECONDS: Final = 0.2
"""The time for all that came with the end of a connection: nothing of it can be served later."""
MQTT5: Final = 5
FORFEITS: Final = frozenset({Reason.NOT_PROVEN, Reason.UNKNOWN})
"""Endings of whoever is not, or no longer, what the session belongs to: nothing of it is stored."""
UNDECIDED: Final = Rejection(reason=Reason.INTERNAL, code=3, code5=0x88)
"""For a login decision that failed, against its contract."""


def peer_of(transport: asyncio.Transport) -> Peer:
    """Who is at the other end, with the certificate of this connection."""
    name = transport.get_extra_info("peername") or ("", 0)
    session = transport.get_extra_info("ssl_object")
    if session is None:
        return Peer(str(name[0]), int(name[1]))
    return Peer(str(name[0]), int(name[1]), tls=True, certificate=session.getpeercert(binary_form=True) or b"")


class Connection(asyncio.Protocol):
    """One client, as the transport sees it, as its seat sees it (`Link`) and as the sessions see it (`Holder`)."""

    __slots__ = (
        "_admission", "_buffer", "_connect", "_ended", "_farewell", "_held", "_keepalive", "_listener", "_output",
        "_peer", "_reason", "_resting", "_seat", "_second", "_seen", "_serving", "_since", "_taken", "_transport",
        "_unsent", "_verdict", "_writable", "slot",
    )  # fmt: skip

    def __init__(self, listener: "Listener") -> None:
        self._listener = listener
        self._transport: asyncio.Transport | None = None
        self._peer = Peer("", 0)
        self._buffer: bytes | bytearray = b""
        self._output = bytearray()
        self._serving = False
        self._resting = False
        self._held = False
        self._ended = False
        self._second = 0.0
        self._taken = 0
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
        self._unsent = 0
        self.slot = 0

    # --- the transport ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        listener = self._listener
        self._transport = cast("asyncio.Transport", transport)  # uvloop's transports are not of asyncio's classes
        transport = self._transport
        self._peer = peer_of(transport)
        self._seen = self._since = listener.loop.time()
        self._reason = listener.enter(self, self._peer.address)
        if self._reason:
            transport.abort()
            return
        transport.set_write_buffer_limits(high=WRITE_BUFFER)
        listener.deadlines.set(self, self._seen + listener.limits.connect_timeout)

    def data_received(self, data: bytes) -> None:
        self._seen = self._listener.loop.time()
        if not self._buffer:
            self._buffer = data
        elif isinstance(self._buffer, bytearray):
            self._buffer += data
        else:
            self._buffer = bytearray(self._buffer + data)
        self._read()

    def eof_received(self) -> bool:
        """TLS brings the end along with what came before it, whether that is to be read or not: it is served now."""
        self._ended = True
        self._resting = False
        self._read()
        return False

    def pause_writing(self) -> None:
        """The device does not take what it is sent: take nothing from it either, so that answers cannot pile up."""
        self._writable = False
        assert self._transport is not None
        self._unsent = self._transport.get_write_buffer_size()
        self._listen()

    def resume_writing(self) -> None:
        self._writable = True
        if self._seat is not None:
            self._seat.writable()
        self._read()
        self._listen()

    def _listen(self) -> None:
        """Let the transport bring more, or not."""
        if self._transport is None or self._transport.is_closing():
            return
        if self._writable and self._verdict is None and not self._resting and not self._held:
            self._transport.resume_reading()
        else:
            self._transport.pause_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        listener = self._listener
        listener.deadlines.drop(self)
        listener.leave(self, self._peer.address)
        self._buffer = b""
        if self._admission is not None:
            self._end(self._admission, self._reason or ("connection_lost" if exc else "closed_by_peer"))
        elif self._verdict is not None:
            if self._verdict.cancel():
                self._log_stranger(self._reason or "closed_by_peer")
        elif self._connect is None and self._reason not in {"too_many_connections", "shutdown"}:
            self._log_stranger(self._reason)

    # --- reading ---

    def _read(self) -> None:
        """Serve every whole packet in the buffer, as long as the device takes the answers."""
        if self._serving or self._resting or self._held or not self._buffer:
            return
        self._serving = True
        try:
            self._serve_buffer()
        except packets.UnsupportedLevel as error:
            self.write(packets.write_connack(1, level=4))
            self.close(f"unsupported_version: level {error.level}")
        except packets.UnsupportedAuthentication:
            self._write_connack(5, 0x8C, level=MQTT5)
            self.close("unsupported_authentication")
        except packets.TooLarge as error:
            self.close(f"packet of {error.size} bytes", code=0x95)
        except packets.UnsupportedQos as error:
            self.close(f"malformed: {error}", code=0x9B)
        except Malformed as error:
            self.close(f"malformed: {error}", code=0x81)
        finally:
            self._serving = False
            self._flush()
        if self._reason:
            self._buffer = b""

    def _serve_buffer(self) -> None:
        """Raises: Malformed and its kin, UnsupportedLevel, TooLarge."""
        buffer, at, served = self._buffer, 0, 0
        until = perf_counter() + (LAST_SECONDS if self._ended else TURN_SECONDS)
        limits = self._listener.limits
        while at < len(buffer) and self._reason == "" and self._verdict is None and self._writable:
            if self._resting or self._held:
                break
            if (served == TURN and not self._ended) or perf_counter() > until:
                self._rest()
                break
            served += 1
            if self._admission is None and buffer[at] != packets.CONNECT:
                raise Malformed("the first packet is not CONNECT")
            # Only a PUBLISH has a reason to be large.
            large = buffer[at] >> 4 == packets.PUBLISH_TYPE
            bounds = packets.frame(buffer, at, limits.max_packet if large else limits.max_small_packet)
            if bounds is None or bounds[1] > len(buffer):
                break
            first, body = buffer[at], bytes(buffer[bounds[0] : bounds[1]])
            at = bounds[1]
            if self._admission is not None:
                self._serve(first, body)
            else:
                self._on_connect(packets.read_connect(body))
        if at:
            self._buffer = bytes(buffer[at:])

    def _rest(self, seconds: float = 0.0) -> None:
        """Let the others have their turn, or wait for the next second of a device that sends too fast."""
        self._resting = True
        self._listener.loop.call_later(seconds, self._go_on)
        self._listen()

    def _go_on(self) -> None:
        self._resting = False
        self._resume()

    def _resume(self) -> None:
        """The time that nothing was read was not the device's."""
        self._seen = self._listener.loop.time()
        self._read()
        self._listen()

    def _serve(self, first: int, body: bytes) -> None:
        assert self._connect is not None
        packet = packets.read(first, body, self._connect.level)
        match packet:
            case Pingreq():
                self.write(packets.PINGRESP)
            case Disconnect():
                if packet.session_expiry and not self._connect.session_expiry:
                    raise Malformed("session expiry in DISCONNECT and none in CONNECT")  # v5 3.14.2.2.2
                # With any other code than 0 an MQTT 5 client asks for its will all the same (v5 3.1.2.5).
                self._leave("disconnected", clean=packet.code == 0, session_expiry=packet.session_expiry)
            case Publish():
                self._serve_publish(packet)
            case _ if not self._is_forfeit:
                self._take_seat().receive(packet)

    def _serve_publish(self, packet: Publish) -> None:
        self._listener.totals.received += 1
        topic = packet.message.topic
        if not is_served(topic):
            self.close("malformed: topic too long or too deep", code=0x90)
            return
        if self._farewell is not None and topic == self._farewell[0].reply_topic:
            if packet.packet_id is not None:
                self.write(packets.write_puback(packet.packet_id))
            self.close(self._farewell[1], code=0x98)
            return
        if self._is_forfeit:
            return
        self._take_seat().receive(packet)
        assert self._admission is not None
        if up := self._admission.limits.up:
            now = self._listener.loop.time()
            self._second, self._taken = pace.count(self._second, self._taken, now)
            wait = pace.wait(self._second, self._taken, up, now)
            if wait and not self._ended:
                self._rest(wait)
                if told := self._admission.conduct.throttled(self._admission.identity):
                    self.publish(replace(told, qos=0))

    @property
    def _is_forfeit(self) -> bool:
        """Its session is no more, and it is about to read why."""
        return self._farewell is not None and self._farewell[1] in FORFEITS

    def _take_seat(self) -> Seat:
        if self._seat is None:
            self._seat = self._enter({})
        return self._seat

    # --- CONNECT ---

    def _on_connect(self, connect: Connect) -> None:
        self._connect = connect
        try:
            verdict = self._listener.admit(connect, self._peer)
        except Exception:
            log.exception("mqtt.login", peer=str(self._peer), outcome="failed", reason=str(UNDECIDED.reason))
            verdict = UNDECIDED
        if isinstance(verdict, Admission | Rejection):
            self._decided(verdict)
            return
        self._verdict = asyncio.ensure_future(verdict)
        self._verdict.add_done_callback(self._on_verdict)
        self._listen()

    def _on_verdict(self, future: asyncio.Future[Verdict]) -> None:
        self._verdict = None
        error = None if future.cancelled() else future.exception()
        if not self.is_open:
            return
        if future.cancelled() or error is not None:
            log.error(
                "mqtt.login", peer=str(self._peer), outcome="failed", reason=str(UNDECIDED.reason), exc_info=error
            )  # fmt: skip
            self._decided(UNDECIDED)
        else:
            self._decided(future.result())
        self._read()
        self._listen()

    def _decided(self, verdict: Verdict) -> None:
        assert self._connect is not None
        if isinstance(verdict, Rejection):
            self._write_connack(verdict.code, verdict.code5, level=self._connect.level)
            self.close(str(verdict.reason))
            return
        self._admission = verdict
        listener = self._listener
        self._connect = connect = self._connect.terms(wills=verdict.limits.wills)
        listener.sessions.enter(verdict.identity, self)
        if verdict.push is None:
            listener.came(verdict.device_id)
        else:  # it comes with the acknowledgement; a session that it has taken over is no longer there
            listener.went(verdict.device_id)
        asked = connect.keepalive or listener.limits.default_keepalive
        keepalive = min(asked, listener.limits.max_keepalive)
        self._keepalive = keepalive * 1.5  # 3.1.2.10
        self._seen = listener.loop.time()  # the time that the verdict took was not the device's
        listener.deadlines.set(self, self._seen + self._keepalive)
        present = not connect.clean and listener.broker.has_session(verdict)
        if connect.clean:
            listener.broker.discard(verdict)
        self._write_connack(0, 0, level=connect.level, session_present=present, keepalive=keepalive)
        stored = not connect.clean or bool(connect.session_expiry)
        if verdict.push is not None:
            self._seat = Activation(
                self, verdict, verdict.push, enter=self._enter, on_acknowledged=self._acknowledged,
                max_filters=listener.limits.max_subscriptions, stored=stored, has_will=connect.will is not None,
            )  # fmt: skip
        elif stored or connect.will is not None:
            self._seat = self._enter({})

    def _acknowledged(self, admission: Admission) -> None:
        self._listener.came(admission.device_id)
        self._listener.on_acknowledged(admission)

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
        """Answers to packets that came together leave together."""
        self._output += data
        if not self._serving or len(self._output) > WRITE_BUFFER:
            self._flush()

    def _flush(self) -> None:
        if self._output and self._transport is not None and not self._transport.is_closing():
            self._transport.write(bytes(self._output))
        self._output.clear()

    def publish(self, message: Message, packet_id: int | None = None, *, dup: bool = False) -> bool:
        data = packets.write_publish(message, level=self.level, packet_id=packet_id, dup=dup)
        if self._connect and self._connect.maximum_packet and len(data) > self._connect.maximum_packet:
            return False
        self._listener.totals.sent += 1
        self.write(data)
        return True

    def hold(self) -> None:
        self._held = True
        self._listen()

    def release(self) -> None:
        self._held = False
        self._resume()

    def close(self, reason: str, *, code: int | None = 0x80) -> None:
        """End the connection: what was written still leaves. `code`: of DISCONNECT, which MQTT 5 alone has."""
        if self._reason or self._transport is None:
            return
        if self._admission is not None and self.level == MQTT5 and code is not None:
            self.write(packets.write_disconnect(code, level=MQTT5))
        self._flush()
        self._reason = reason
        self._transport.close()
        self._listener.deadlines.set(self, self._listener.loop.time() + LINGER)

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    # --- the connection as the sessions see it ---

    @property
    def device_id(self) -> int:
        return self._admission.device_id if self._admission else 0

    @property
    def certificate(self) -> tuple[int, str] | None:
        return self._admission.certificate if self._admission else None

    @property
    def epoch(self) -> int:
        return self._admission.epoch if self._admission else 0

    def taken_over(self) -> None:
        """The seat leaves at once: the newer connection must find the session free."""
        self._leave("taken_over", clean=False, code=0x8E)

    def dismiss(self, reason: Reason) -> None:
        if self._admission is None or self._reason or self._farewell is not None:
            return
        notice = self._admission.conduct.farewell(self._admission.identity, reason)
        if reason in FORFEITS:
            self._vacate(clean=False, session_expiry=0)
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
        elif self._held or self._resting:
            return now + self._keepalive
        elif (deadline := self._seen + self._keepalive) > now:
            return deadline
        elif self._is_taking():
            return now + self._keepalive
        else:
            self.close("keepalive_timeout", code=0x8D)
        return None

    def _is_taking(self) -> bool:
        """Nothing is read from a device that is slow to take what it is sent: it lives as long as it takes some."""
        if self._writable or self._transport is None:
            return False
        before, self._unsent = self._unsent, self._transport.get_write_buffer_size()
        return self._unsent < before

    def _leave(self, reason: str, *, clean: bool, session_expiry: int | None = None, code: int | None = None) -> None:
        self._vacate(clean=clean, session_expiry=session_expiry)
        self.close(reason, code=code)

    def _vacate(self, *, clean: bool, session_expiry: int | None = None) -> None:
        seat, self._seat = self._seat, None
        if seat is not None:
            seat.gone(clean=clean, session_expiry=session_expiry)

    def _end(self, admission: Admission, reason: str) -> None:
        self._vacate(clean=False)
        if self._listener.sessions.leave(admission.identity, self):
            self._listener.went(admission.device_id)
        identity = admission.identity
        log.info(
            "mqtt.disconnect", protocol=identity.protocol, product=identity.product, device=identity.device,
            peer=str(self._peer), reason=reason, seconds=round(self._listener.loop.time() - self._since, 3),
        )  # fmt: skip
        self._admission = None

    def _log_stranger(self, reason: str) -> None:
        """Somebody came and no login was decided. A look at the port alone is not worth a line."""
        write = log.info if reason else log.debug
        write("mqtt.login", protocol="none", peer=str(self._peer), outcome="refused", reason=reason or "closed_by_peer")
