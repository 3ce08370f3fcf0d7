"""One device's place in the embedded broker: its subscriptions, what it sends, and what becomes of that."""

from collections.abc import Awaitable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import structlog
from amqtt.session import Session  # type: ignore[import-untyped]  # amqtt has no py.typed

from broker import packets
from broker.outbox import Outbox
from broker.packets import Puback, Publish, Subscribe, Unsubscribe
from broker.plugin import ADMISSION
from broker.seat import Link, Served, refused_subscription
from broker.topics import is_served
from provisioning.model.admission import NOTHING, Admission, Answer, TopicRights
from provisioning.model.mqtt import Connect, Message

if TYPE_CHECKING:
    from broker.embedded import EmbeddedBroker

log = structlog.get_logger()

MQTT5: Final = 5
FORBIDDEN: Final = 0x87
OVERSIZE: Final = 0x97
"""Quota exceeded: PUBACK has no code for a packet that is too large (MQTT 5, 3.4.2.1)."""


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
        self._admitted = admission
        self.slot = 0
        self._link: Link | None = None
        self._will: Message | None = None
        self._stored_for = 0
        self._outbox = Outbox(broker)

    @property
    def queued(self) -> int:
        return len(self._outbox)

    # --- the connection comes and goes ---

    def attach(self, link: Link, admission: Admission, connect: Connect, granted: Mapping[str, int]) -> None:
        """Serve a connection, with the subscriptions that it has already; what waited for it leaves."""
        self._link = link
        self.admission = self._admitted = admission
        self.session.attributes[ADMISSION] = admission
        self.session.transitions.connect()
        self._broker.deadlines.drop(self)
        self._will = connect.will
        self._stored_for = self._lifetime(connect)
        self._outbox.attach(link, admission.limits, keeps=bool(self._stored_for))
        for topic_filter, qos in granted.items():
            self._broker.subscribe(self, topic_filter, qos)
        self._outbox.send_waiting()

    def _lifetime(self, connect: Connect) -> int:
        """Seconds that the session outlives the connection."""
        limit = self._broker.limits.session_expiry
        if connect.level == MQTT5:
            return min(connect.session_expiry or 0, limit)
        return 0 if connect.clean else limit

    def gone(self, *, clean: bool, session_expiry: int | None = None) -> None:
        self._link = None
        self.session.transitions.disconnect()
        self._outbox.detach()
        will, self._will = self._will, None
        if will is not None and not clean:
            self._publish_will(will)
        if self.admission is not self._admitted:  # what the connection was granted besides ends with it
            self._change_rights(self._admitted.rights)
        if session_expiry is not None and self._stored_for:
            self._stored_for = min(session_expiry, self._broker.limits.session_expiry)
        if self._stored_for:
            self._broker.expire_later(self, self._stored_for)
        else:
            self.drop()

    def expired(self, now: float) -> None:
        """The stored session has waited long enough for its device."""
        del now
        self.drop()

    def drop(self) -> None:
        """Forget the session. A connection that it still has is served, and leaves nothing."""
        self._broker.deadlines.drop(self)
        self.unsubscribe_all()
        self._outbox.clear()
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
                self._outbox.acknowledged(packet_id)
            case Subscribe():
                self._receive_subscribe(packet)
            case Unsubscribe():
                self._receive_unsubscribe(packet)

    def _receive_publish(self, packet: Publish) -> None:
        assert self._link is not None
        message, admission = packet.message, self.admission
        code = 0
        answer: Answer | Awaitable[Answer]
        if not admission.rights.may_publish(message.topic):
            code = FORBIDDEN
            answer = admission.conduct.on_forbidden(admission.identity, message)
        elif len(message.payload) > admission.max_payload:
            code = OVERSIZE
            answer = admission.conduct.on_oversize(admission.identity, message)
        else:
            self._publish(message)
            answer = admission.conduct.on_message(admission.identity, message)
        self._broker.refused += code != 0
        now = answer if isinstance(answer, Answer) else None
        if packet.packet_id is not None and not (now and now.close):
            self._link.write(packets.write_puback(packet.packet_id, code if self._link.level == MQTT5 else 0))
        if isinstance(answer, Answer):
            self._answer(self._link, answer, code)
        else:
            self._link.hold()
            self._broker.spawn(self._answer_later(self._link, answer))

    def _publish(self, message: Message) -> None:
        if message.retain and self.admission.limits.retained:
            self._broker.retain(self.session, message)
        self._broker.route(message)

    async def _answer_later(self, link: Link, answer: Awaitable[Answer]) -> None:
        """What comes behind a message that takes its time is read when that is answered: it may rest on new rights."""
        try:
            found = await answer
        except Exception:
            identity = self.admission.identity
            log.exception(
                "mqtt.message", protocol=identity.protocol, product=identity.product, device=identity.device,
                outcome="failed", reason="internal",
            )  # fmt: skip
            found = NOTHING
        if self._link is link:  # else nobody waits for it any more
            self._answer(link, found, 0)
        link.release()

    def _answer(self, link: Link, answer: Answer, code: int) -> None:
        if answer.rights is not None:
            self._change_rights(answer.rights(self.admission.rights))
        if (reply := answer.reply) is not None:
            granted = self._broker.granted(self, reply.topic)
            if granted is None:
                link.publish(replace(reply, qos=0))
            else:
                self.deliver(reply, min(reply.qos, granted))
        if answer.close:
            link.close("payload_too_large" if code == OVERSIZE else "forbidden_publish", code=code or FORBIDDEN)

    def _change_rights(self, rights: TopicRights) -> None:
        self.admission = self.session.attributes[ADMISSION] = replace(self.admission, rights=rights)
        for topic_filter in [each for each in self.filters if not rights.may_subscribe(each)]:
            self._broker.unsubscribe(self, topic_filter)

    def _receive_subscribe(self, packet: Subscribe) -> None:
        assert self._link is not None
        most = self.admission.limits.filters
        granted = [
            self._broker.subscribe(self, topic_filter, qos) if most is None or at < most else None
            for at, (topic_filter, qos) in enumerate(packet.filters)
        ]
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
        self._outbox.deliver(message, qos)

    def writable(self) -> None:
        self._outbox.send_waiting()
