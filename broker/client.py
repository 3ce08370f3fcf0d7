"""One device's place in the embedded broker: its subscriptions, what is under way to it, what waits for it."""

from collections import deque
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import structlog
from amqtt.session import Session  # type: ignore[import-untyped]  # amqtt has no py.typed

from broker import packets
from broker.packets import Puback, Publish, Subscribe, Unsubscribe
from broker.plugin import ADMISSION
from broker.seat import Link, Served, refused_subscription
from broker.topics import is_served
from provisioning.model.admission import Admission, Answer
from provisioning.model.mqtt import Connect, Message

if TYPE_CHECKING:
    from broker.embedded import EmbeddedBroker

log = structlog.get_logger()

LAST_PACKET_ID: Final = 0xFFFE
"""0xFFFF belongs to the activation."""
MQTT5: Final = 5


class _States:
    """What amqtt asks of a session's state machine; the library it uses for that costs more than a login."""

    def __init__(self) -> None:
        self.state = "new"

    def connect(self) -> None:
        self.state = "connected"

    def disconnect(self) -> None:
        self.state = "disconnected"

    def is_connected(self) -> bool:
        return self.state == "connected"


class DeviceSession(Session):  # type: ignore[misc]  # amqtt has no py.typed
    """amqtt's session with a light state machine."""

    def _init_states(self) -> None:
        self.transitions = _States()


class Client:
    """The seat of a connection; it stays when the connection goes, if the session is to be stored."""

    def __init__(self, broker: "EmbeddedBroker", admission: Admission) -> None:
        self._broker = broker
        self.client_id = str(admission.identity)
        self.session = DeviceSession()
        self.session.client_id = self.client_id
        self.session.clean_session = False
        self.filters: dict[str, int] = {}
        self.wildcards = 0
        self.admission = admission
        self.slot = 0
        self._link: Link | None = None
        self._will: Message | None = None
        self._stored_for = 0
        self._window = 1
        self._packet_id = 0
        self._inflight: dict[int, Message] = {}
        self._again: deque[int] = deque()
        self._queue: deque[Message] = deque()
        self._late: deque[Message] = deque()
        self._held_bytes = 0

    @property
    def queued(self) -> int:
        return len(self._inflight) + len(self._queue) + len(self._late)

    # --- the connection comes and goes ---

    def attach(self, link: Link, admission: Admission, connect: Connect, granted: Mapping[str, int]) -> None:
        """Serve a connection, with the subscriptions that it has already; what waited for it leaves."""
        self._link = link
        self.admission = admission
        self.session.attributes[ADMISSION] = admission
        self.session.transitions.connect()
        self._broker.deadlines.drop(self)
        self._will = connect.will
        self._window = min(self._broker.limits.max_inflight, link.receive_maximum, LAST_PACKET_ID)
        self._stored_for = self._lifetime(connect)
        for topic_filter, qos in granted.items():
            self._broker.subscribe(self, topic_filter, qos)
        self._again = deque(self._inflight)
        self._send_waiting()

    def _lifetime(self, connect: Connect) -> int:
        """Seconds that the session outlives the connection."""
        limit = self._broker.limits.session_expiry
        if connect.level == MQTT5:
            return min(connect.session_expiry or 0, limit)
        return 0 if connect.clean else limit

    def gone(self, *, clean: bool, session_expiry: int | None = None) -> None:
        self._link = None
        self.session.transitions.disconnect()
        self._again.clear()
        self._forget_late()
        will, self._will = self._will, None
        if will is not None and not clean:
            self._publish_will(will)
        if session_expiry is not None and self._stored_for:
            self._stored_for = min(session_expiry, self._broker.limits.session_expiry)
        if self._stored_for:
            self._broker.expire_later(self, self._stored_for)
        else:
            self.drop()

    def _forget_late(self) -> None:
        """QoS 0 is for who is there (MQTT 3.1.1, 4.3.1)."""
        self._broker.dropped += len(self._late)
        self._held_bytes -= sum(len(message.payload) for message in self._late)
        self._late.clear()

    def expired(self, now: float) -> None:
        """The stored session has waited long enough for its device."""
        del now
        self.drop()

    def drop(self) -> None:
        """Forget the session. A connection that it still has is served, and leaves nothing."""
        self._broker.deadlines.drop(self)
        self.unsubscribe_all()
        self._inflight.clear()
        self._again.clear()
        self._queue.clear()
        self._late.clear()
        self._held_bytes = 0
        self._stored_for = 0
        self._will = None
        self._broker.leave(self)

    def unsubscribe_all(self) -> None:
        for topic_filter in list(self.filters):
            self._broker.unsubscribe(self, topic_filter)

    async def stop(self) -> None:
        """As amqtt's handlers have it: the listener has closed the connection before."""

    async def mqtt_publish(
        self, topic: str, data: bytes | bytearray, qos: int | None, retain: bool, ack_timeout: int | None = None  # noqa: FBT001 - as amqtt has it
    ) -> None:  # fmt: skip
        """As amqtt's handlers have it, for its plugins."""
        del ack_timeout
        self.deliver(Message(topic, bytes(data), retain=retain), min(qos or 0, 1))

    def _publish_will(self, will: Message) -> None:
        admission = self.admission
        allowed = is_served(will.topic) and admission.rights.may_publish(will.topic)
        if allowed and len(will.payload) <= admission.max_payload:
            self._publish(replace(will, qos=min(will.qos, 1)))
        else:
            identity = admission.identity
            log.info(
                "mqtt.will", protocol=identity.protocol, product=identity.product, device=identity.device,
                topic=will.topic, outcome="refused", reason="forbidden",
            )  # fmt: skip

    # --- from the device ---

    def receive(self, packet: Served) -> None:
        match packet:
            case Publish():
                self._receive_publish(packet)
            case Puback(packet_id=packet_id):
                self._receive_puback(packet_id)
            case Subscribe():
                self._receive_subscribe(packet)
            case Unsubscribe():
                self._receive_unsubscribe(packet)

    def _receive_publish(self, packet: Publish) -> None:
        assert self._link is not None
        message, admission = packet.message, self.admission
        code = 0
        if not admission.rights.may_publish(message.topic):
            code = 0x87
            answer = admission.conduct.on_forbidden(admission.identity, message)
        elif len(message.payload) > admission.max_payload:
            code = 0x97  # Quota exceeded: PUBACK has no code for a packet that is too large (MQTT 5, 3.4.2.1)
            answer = admission.conduct.on_oversize(admission.identity, message)
        else:
            self._publish(message)
            answer = admission.conduct.on_message(admission.identity, message)
        self._broker.refused += code != 0
        if packet.packet_id is not None:
            self._link.write(packets.write_puback(packet.packet_id, code if self._link.level == MQTT5 else 0))
        self._answer(answer)

    def _publish(self, message: Message) -> None:
        if message.retain:
            self._broker.retain(self.session, message)
        self._broker.route(message)

    def _answer(self, answer: Answer) -> None:
        assert self._link is not None
        if (reply := answer.reply) is not None:
            granted = self._broker.granted(self, reply.topic)
            if granted is None:
                self._link.publish(replace(reply, qos=0))
            else:
                self.deliver(reply, min(reply.qos, granted))
        if answer.close:
            self._link.close("forbidden_publish", code=0x87)

    def _receive_puback(self, packet_id: int) -> None:
        message = self._inflight.pop(packet_id, None)
        if message is None:
            return
        self._held_bytes -= len(message.payload)
        if packet_id in self._again:
            self._again.remove(packet_id)
        self._send_waiting()

    def _receive_subscribe(self, packet: Subscribe) -> None:
        assert self._link is not None
        granted = [self._broker.subscribe(self, topic_filter, qos) for topic_filter, qos in packet.filters]
        no = refused_subscription(self._link.level)
        codes = [no if qos is None else qos for qos in granted]
        self._link.write(packets.write_suback(packet.packet_id, codes, self._link.level))
        new = {name: qos for (name, _), qos in zip(packet.filters, granted, strict=True) if qos is not None}
        for message, qos in self._broker.retained.matching(new.items()):
            self.deliver(message, qos)

    def _receive_unsubscribe(self, packet: Unsubscribe) -> None:
        assert self._link is not None
        found = [self._broker.unsubscribe(self, topic_filter) for topic_filter in packet.filters]
        codes = [0 if was_there else 0x11 for was_there in found]  # 0x11: no subscription existed
        self._link.write(packets.write_unsuback(packet.packet_id, codes, self._link.level))

    # --- to the device ---

    def deliver(self, message: Message, qos: int) -> None:
        """Send at once, or keep for later; what cannot be kept is counted as dropped."""
        link = self._link
        message = message if message.qos == qos else replace(message, qos=qos)
        if link is not None and link.is_writable and self._may_go_at_once(message):
            self._send(link, message)
        elif not self._has_room(message) or (link is None and not (qos and self._stored_for)):
            self._broker.dropped += 1
        else:
            (self._queue if qos else self._late).append(message)
            self._held_bytes += len(message.payload)

    def _may_go_at_once(self, message: Message) -> bool:
        if not message.qos:
            return not self._late
        return self._has_window and not self._queue and (not self._inflight or self._has_room(message))

    @property
    def _has_window(self) -> bool:
        return len(self._inflight) - len(self._again) < self._window

    def _has_room(self, message: Message) -> bool:
        limits = self._broker.limits
        held = self._held_bytes + len(message.payload)
        return len(self._queue) + len(self._late) < limits.max_queued and held <= limits.max_queued_bytes

    def _send(self, link: Link, message: Message) -> None:
        """Write a message that is not in the queue any more."""
        packet_id = None
        if message.qos:
            packet_id = self._packet_id = self._free_packet_id()
            self._inflight[packet_id] = message
            self._held_bytes += len(message.payload)
        if link.publish(message, packet_id):
            self._broker.delivered += 1
            return
        self._broker.dropped += 1
        if packet_id is not None:
            del self._inflight[packet_id]
            self._held_bytes -= len(message.payload)

    def _free_packet_id(self) -> int:
        """The window is smaller than the range, so there is one."""
        packet_id = self._packet_id % LAST_PACKET_ID + 1
        while packet_id in self._inflight:
            packet_id = packet_id % LAST_PACKET_ID + 1
        return packet_id

    def _send_waiting(self) -> None:
        """First again what was not acknowledged, then what has waited (MQTT 3.1.1, 4.4 and 4.6)."""
        link = self._link
        if link is None or not link.is_open:
            return
        while self._late and link.is_writable:
            self._send(link, self._unqueued(self._late))
        while self._again and self._has_window and link.is_writable:
            packet_id = self._again.popleft()
            if not link.publish(self._inflight[packet_id], packet_id, dup=True):
                self._held_bytes -= len(self._inflight.pop(packet_id).payload)
                self._broker.dropped += 1
        while self._queue and not self._again and self._has_window and link.is_writable:
            self._send(link, self._unqueued(self._queue))

    def _unqueued(self, queue: deque[Message]) -> Message:
        message = queue.popleft()
        self._held_bytes -= len(message.payload)
        return message

    def writable(self) -> None:
        self._send_waiting()
