"""The embedded amqtt broker: subscriptions, retained messages, wills and stored sessions of admitted devices.

It is amqtt's `Broker` with the tables and plugins that it has, and with other ways through them. amqtt serves a client by
half a dozen tasks, looks at every subscription for every message, and trusts its clients in ways that devices have not
earned (docs/amqtt.md lists them). Here an admitted connection hands over packets that are already read; each is served at
once, without a task; filters are found by index; every queue has an end.
"""

import heapq
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import count
from typing import Any, Final

import structlog
from amqtt.broker import Broker, RetainedApplicationMessage
from amqtt.session import Session

from broker import packets
from broker.packets import Puback, Publish, Subscribe, Unsubscribe
from broker.plugin import ADMISSION
from broker.seat import FAILURE, Link, Seat, Served, refused_subscription
from broker.topics import TopicIndex, WildcardTree, has_wildcard
from provisioning.model.admission import Admission, Answer
from provisioning.model.identity import Identity
from provisioning.model.mqtt import Connect, Message

log = structlog.get_logger()

CONFIG: Final[Mapping[str, Any]] = {
    "listeners": {"default": {"type": "external"}},
    # No plugin authenticates: amqtt refuses whoever comes by any other way than the listener.
    "plugins": {"broker.plugin.SessionRights": {}},
}
LAST_PACKET_ID: Final = 0xFFFE  # 0xFFFF belongs to the activation


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Counts, bytes and seconds; see `config/gatehouse.toml`."""

    max_subscriptions: int = 500
    max_retained: int = 100
    max_queued: int = 1_000
    max_queued_bytes: int = 4_194_304
    max_inflight: int = 64
    session_expiry: int = 86_400


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


class DeviceSession(Session):
    """amqtt's session with a light state machine."""

    def _init_states(self) -> None:
        self.transitions = _States()


class Subscriptions(dict[str, list[tuple[Session, int]]]):
    """amqtt's table of subscriptions, which also knows its filters with wildcards."""

    def __init__(self) -> None:
        super().__init__()
        self._wildcards = WildcardTree()

    def __setitem__(self, topic_filter: str, subscribers: list[tuple[Session, int]]) -> None:
        super().__setitem__(topic_filter, subscribers)
        if has_wildcard(topic_filter):
            self._wildcards.add(topic_filter)

    def __delitem__(self, topic_filter: str) -> None:
        super().__delitem__(topic_filter)
        if has_wildcard(topic_filter):
            self._wildcards.discard(topic_filter)

    def clear(self) -> None:
        super().clear()
        self._wildcards = WildcardTree()

    def __repr__(self) -> str:
        """Without the content: amqtt renders it for a log line that nobody reads."""
        return f"<{len(self)} topic filters>"

    def match(self, topic: str) -> dict[str, tuple[Session, int]]:
        """The subscribers of a topic by client id, each once, with the highest QoS of its matching filters."""
        found: dict[str, tuple[Session, int]] = {}
        for topic_filter in (topic, *self._wildcards.match(topic)):
            for session, qos in self.get(topic_filter, ()):
                client_id = session.client_id or ""
                if client_id not in found or found[client_id][1] < qos:
                    found[client_id] = session, qos
        return found


class EmbeddedBroker(Broker):
    """Serves the sessions that need a broker. Create it in a running loop, `start` it, `shutdown` it."""

    def __init__(self, limits: Limits) -> None:
        super().__init__(dict(CONFIG))
        self.limits = limits
        self._subscriptions: Subscriptions = Subscriptions()
        self._retained_index = TopicIndex()
        self._retained_counts: dict[str, int] = {}
        self._expiries: list[tuple[float, int, Client]] = []
        self._order = count()
        self._monitor: Any = None
        self.delivered = 0
        self.dropped = 0

    # --- sessions ---

    def has_session(self, admission: Admission) -> bool:
        return str(admission.identity) in self._sessions

    def discard(self, admission: Admission) -> None:
        self.forget(admission.identity)

    def forget(self, identity: Identity) -> None:
        """Drop the stored session of an identity that is not connected."""
        client = self._client(str(identity))
        if client is not None:
            client.drop()

    def forget_device(self, identity: Identity) -> None:
        """The device is gone from the registry, or has lost its secret: nothing of it stays."""
        self.forget(identity)
        publisher = str(identity)
        for topic, message in list(self._retained_messages.items()):
            if message.source_session is not None and message.source_session.client_id == publisher:
                self._unretain(topic)

    def seat(self, link: Link, admission: Admission, connect: Connect, granted: Mapping[str, int]) -> Seat:
        client = self._client(str(admission.identity))
        if client is None:
            client = Client(self, admission)
            self._sessions[client.client_id] = (client.session, client)  # type: ignore[assignment]
        client.attach(link, admission, connect)
        for topic_filter, qos in granted.items():
            self.subscribe(client, topic_filter, qos)
        client.resume()
        return client

    def _client(self, client_id: str) -> "Client | None":
        _, client = self._sessions.get(client_id, (None, None))
        return client if isinstance(client, Client) else None

    def expire_later(self, client: "Client", seconds: int) -> None:
        heapq.heappush(self._expiries, (self._loop.time() + seconds, next(self._order), client))
        self._watch_expiries()

    def _watch_expiries(self) -> None:
        if self._monitor is None and self._expiries:
            self._monitor = self._loop.call_at(self._expiries[0][0], self._expire)

    def _expire(self) -> None:
        self._monitor = None
        while self._expiries and self._expiries[0][0] <= self._loop.time():
            at, _, client = heapq.heappop(self._expiries)
            if client.expires_at is not None and client.expires_at <= at:
                client.drop()
        self._watch_expiries()

    async def _session_monitor(self) -> None:
        """amqtt looks at every session once a second; here each has its own moment."""

    async def shutdown(self) -> None:
        if self._monitor is not None:
            self._monitor.cancel()
        await super().shutdown()

    # --- subscriptions ---

    def subscribe(self, client: "Client", topic_filter: str, qos: int) -> int | None:
        """Grant a filter with at most QoS 1, in place of an earlier grant; None: refused."""
        shared = topic_filter.startswith("$share/")
        if shared or not client.admission.rights.may_subscribe(topic_filter):
            return None
        if topic_filter not in client.filters and len(client.filters) >= self.limits.max_subscriptions:
            return None
        granted = min(qos, 1)
        subscribers = self._subscriptions.get(topic_filter)
        if subscribers is None:
            subscribers = self._subscriptions[topic_filter] = []
        if topic_filter in client.filters:
            subscribers[:] = [pair for pair in subscribers if pair[0] is not client.session]
        subscribers.append((client.session, granted))
        client.filters[topic_filter] = granted
        return granted

    def unsubscribe(self, client: "Client", topic_filter: str) -> bool:
        """False: there was no such subscription."""
        if client.filters.pop(topic_filter, None) is None:
            return False
        left = [pair for pair in self._subscriptions[topic_filter] if pair[0] is not client.session]
        if left:
            self._subscriptions[topic_filter] = left
        else:
            del self._subscriptions[topic_filter]
        return True

    async def add_subscription(self, subscription: tuple[str, int], session: Session) -> int:
        client = self._client(session.client_id or "")
        granted = self.subscribe(client, *subscription) if client else None
        return FAILURE if granted is None else granted

    async def _del_all_subscriptions(self, session: Session) -> None:
        if client := self._client(session.client_id or ""):
            client.unsubscribe_all()

    # --- messages ---

    def route(self, message: Message) -> int:
        """Hand a message to its subscribers, each with the lower of the two QoS; returns how many there were."""
        found = self._subscriptions.match(message.topic)
        plain = replace(message, retain=False) if message.retain else message
        for client_id, (_, granted) in found.items():
            client = self._client(client_id)
            if client is not None and client.admission.rights.may_receive(message.topic):
                client.deliver(plain, min(message.qos, granted))
        return len(found)

    async def _broadcast_message(
        self, session: Session | None, topic: str | None, data: bytes | bytearray | None, force_qos: int | None = None
    ) -> None:
        """What amqtt's plugins and contexts broadcast goes the same way as everything else."""
        del session
        if topic and data is not None:
            self.route(Message(topic, bytes(data), qos=min(force_qos or 0, 1)))

    def retain(self, client: "Client", message: Message) -> None:
        """Keep the message as the topic's last; an empty payload clears it (MQTT 3.1.1, 3.3.1.3)."""
        topic = message.topic
        if not message.payload:
            self._unretain(topic)
            return
        if topic not in self._retained_messages:
            if self._retained_counts.get(client.client_id, 0) >= self.limits.max_retained:
                self.dropped += 1
                return
            self._retained_index.add(topic)
        else:
            self._discount(topic)
        kept = RetainedApplicationMessage(client.session, topic, message.payload, message.qos)
        self._retained_messages[topic] = kept
        self._retained_counts[client.client_id] = self._retained_counts.get(client.client_id, 0) + 1

    def _unretain(self, topic: str) -> None:
        if topic in self._retained_messages:
            self._discount(topic)
            del self._retained_messages[topic]
            self._retained_index.discard(topic)

    def _discount(self, topic: str) -> None:
        source = self._retained_messages[topic].source_session
        publisher = source.client_id if source else None
        if publisher in self._retained_counts:
            self._retained_counts[publisher] -= 1
            if not self._retained_counts[publisher]:
                del self._retained_counts[publisher]

    def retained(self, topic_filter: str) -> list[Message]:
        """The retained messages that a new subscription to the filter brings."""
        return [
            Message(topic, bytes(kept.data), qos=kept.qos or 0, retain=True)
            for topic in self._retained_index.below(topic_filter)
            if packets.matches(topic_filter, topic) and (kept := self._retained_messages.get(topic))
        ]

    @property
    def queued(self) -> int:
        """Messages that wait for devices; counted on demand, for metrics."""
        return sum(client.queued for _, client in self._sessions.values() if isinstance(client, Client))


class Client:
    """One device's place in the broker. It stays when the connection goes, if the session is to be stored."""

    def __init__(self, broker: EmbeddedBroker, admission: Admission) -> None:
        self._broker = broker
        self.client_id = str(admission.identity)
        self.session = DeviceSession()
        self.session.client_id = self.client_id
        self.session.clean_session = False
        self.filters: dict[str, int] = {}
        self.expires_at: float | None = None
        self._link: Link | None = None
        self._will: Message | None = None
        self._stored_for = 0
        self._window = 1
        self._packet_id = 0
        self._inflight: dict[int, Message] = {}
        self._queue: deque[Message] = deque()
        self._queued_bytes = 0
        self.admission = admission

    @property
    def queued(self) -> int:
        return len(self._queue) + len(self._inflight)

    # --- the connection comes and goes ---

    def attach(self, link: Link, admission: Admission, connect: Connect) -> None:
        self._link = link
        self.admission = admission
        self.session.attributes[ADMISSION] = admission
        self.session.transitions.connect()
        self.expires_at = None
        self._will = connect.will
        self._window = min(self._broker.limits.max_inflight, link.receive_maximum)
        limit = self._broker.limits.session_expiry
        stated = connect.session_expiry
        if connect.level == 5:  # noqa: PLR2004 - the number of the version
            self._stored_for = min(stated or 0, limit)
        else:
            self._stored_for = 0 if connect.clean else limit

    def resume(self) -> None:
        """Send again what the device has not acknowledged, then what has waited (MQTT 3.1.1, 4.4)."""
        assert self._link is not None
        for packet_id, message in list(self._inflight.items()):
            if not self._link.publish(message, packet_id, dup=True):
                del self._inflight[packet_id]
        self._send_queued()

    def gone(self, *, clean: bool) -> None:
        self._link = None
        self.session.transitions.disconnect()
        will, self._will = self._will, None
        if will is not None and not clean:
            self._publish_will(will)
        if self._stored_for:
            self.expires_at = self._broker._loop.time() + self._stored_for  # noqa: SLF001 - amqtt's own name
            self._broker.expire_later(self, self._stored_for)
        else:
            self.drop()

    def drop(self) -> None:
        """Forget the session."""
        self.unsubscribe_all()
        self._inflight.clear()
        self._queue.clear()
        self._queued_bytes = 0
        self.expires_at = None
        if self._broker._client(self.client_id) is self:  # noqa: SLF001
            del self._broker._sessions[self.client_id]  # noqa: SLF001 - amqtt's own name

    def unsubscribe_all(self) -> None:
        for topic_filter in list(self.filters):
            self._broker.unsubscribe(self, topic_filter)

    async def stop(self) -> None:
        """amqtt stops its handlers when it shuts down; the listener has closed the connection before."""

    async def mqtt_publish(
        self, topic: str, data: bytes | bytearray, qos: int | None, retain: bool, ack_timeout: int | None = None  # noqa: FBT001
    ) -> None:
        """As amqtt's handlers have it, for its plugins."""
        del ack_timeout
        self.deliver(Message(topic, bytes(data), qos=min(qos or 0, 1), retain=retain), min(qos or 0, 1))

    def _publish_will(self, will: Message) -> None:
        rights = self.admission.rights
        if rights.may_publish(will.topic) and len(will.payload) <= self.admission.max_payload:
            self._publish(replace(will, qos=min(will.qos, 1)))
        else:
            identity = self.admission.identity
            log.info(
                "mqtt.will", protocol=identity.protocol, product=identity.product, device=identity.device,
                topic=will.topic, outcome="refused", reason="forbidden_topic",
            )  # fmt: skip

    # --- from the device ---

    def receive(self, packet: Served) -> None:
        match packet:
            case Publish():
                self._receive_publish(packet)
            case Puback(packet_id=packet_id):
                if self._inflight.pop(packet_id, None) is not None:
                    self._send_queued()
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
            code = 0x95
            answer = admission.conduct.on_oversize(admission.identity, message)
        else:
            self._publish(message)
            answer = admission.conduct.on_message(admission.identity, message)
        if packet.packet_id is not None:
            self._link.write(packets.write_puback(packet.packet_id, code if self._link.level == 5 else 0))  # noqa: PLR2004
        self._answer(answer)

    def _publish(self, message: Message) -> None:
        if message.retain:
            self._broker.retain(self, message)
        self._broker.route(message)

    def _answer(self, answer: Answer) -> None:
        assert self._link is not None
        if answer.to_subscribers is not None:
            self._broker.route(answer.to_subscribers)
        if answer.to_publisher is not None:
            self._link.publish(replace(answer.to_publisher, qos=0))
        if answer.close:
            self._link.close("forbidden_publish")

    def _receive_subscribe(self, packet: Subscribe) -> None:
        assert self._link is not None
        granted = [self._broker.subscribe(self, topic_filter, qos) for topic_filter, qos in packet.filters]
        no = refused_subscription(self._link.level)
        codes = [no if qos is None else qos for qos in granted]
        self._link.write(packets.write_suback(packet.packet_id, codes, self._link.level))
        for (topic_filter, _), qos in zip(packet.filters, granted, strict=True):
            if qos is not None:
                for message in self._broker.retained(topic_filter):
                    self.deliver(message, min(message.qos, qos))

    def _receive_unsubscribe(self, packet: Unsubscribe) -> None:
        assert self._link is not None
        found = [self._broker.unsubscribe(self, topic_filter) for topic_filter in packet.filters]
        codes = [0 if was_there else 0x11 for was_there in found]  # 0x11: no subscription existed
        self._link.write(packets.write_unsuback(packet.packet_id, codes, self._link.level))

    # --- to the device ---

    def deliver(self, message: Message, qos: int) -> None:
        """Send at once, or keep for later what must not be lost; what cannot be kept is counted as dropped."""
        link = self._link
        message = message if message.qos == qos else replace(message, qos=qos)
        if qos == 0:
            if link is not None and link.is_writable and link.publish(message):
                self._broker.delivered += 1
            else:
                self._broker.dropped += 1
        elif link is None and not self._stored_for:
            self._broker.dropped += 1
        elif link is not None and link.is_writable and not self._queue and len(self._inflight) < self._window:
            self._send(link, message)
        elif self._has_room(message):
            self._queue.append(message)
            self._queued_bytes += len(message.payload)
        else:
            self._broker.dropped += 1

    def _has_room(self, message: Message) -> bool:
        limits = self._broker.limits
        return (
            len(self._queue) < limits.max_queued
            and self._queued_bytes + len(message.payload) <= limits.max_queued_bytes
        )

    def _send(self, link: Link, message: Message) -> None:
        self._packet_id = self._packet_id % LAST_PACKET_ID + 1
        while self._packet_id in self._inflight:
            self._packet_id = self._packet_id % LAST_PACKET_ID + 1
        if link.publish(message, self._packet_id):
            self._inflight[self._packet_id] = message
            self._broker.delivered += 1
        else:
            self._broker.dropped += 1

    def _send_queued(self) -> None:
        link = self._link
        while link is not None and self._queue and link.is_writable and len(self._inflight) < self._window:
            message = self._queue.popleft()
            self._queued_bytes -= len(message.payload)
            self._send(link, message)

    def writable(self) -> None:
        self._send_queued()
