"""amqtt's tables of subscriptions and retained messages, found by index and with an end.

amqtt keeps both as dictionaries and goes through all of them for each message, and each CONNECT and SUBSCRIBE. These
are still dictionaries, so that all of amqtt that is used keeps working.
"""

from collections.abc import Iterable, Iterator

from amqtt.broker import RetainedApplicationMessage  # type: ignore[import-untyped]  # amqtt has no py.typed
from amqtt.session import Session  # type: ignore[import-untyped]  # as above

from broker import packets
from broker.topics import TopicIndex, WildcardTree, has_wildcard
from provisioning.model.mqtt import Message


class Subscriptions(dict[str, list[tuple[Session, int]]]):
    """Topic filter -> subscribers and the QoS granted to each; it also knows its filters with wildcards."""

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

    def add(self, topic_filter: str, session: Session, qos: int) -> None:
        """In place of an earlier subscription of the session to the same filter."""
        others = [pair for pair in self.get(topic_filter, ()) if pair[0] is not session]
        self[topic_filter] = [*others, (session, qos)]

    def discard(self, topic_filter: str, session: Session) -> None:
        left = [pair for pair in self.get(topic_filter, ()) if pair[0] is not session]
        if left:
            self[topic_filter] = left
        elif topic_filter in self:
            del self[topic_filter]

    def match(self, topic: str) -> dict[str, int]:
        """The subscribers of a topic by client id, each once, with the highest QoS of its matching filters."""
        found: dict[str, int] = {}
        for topic_filter in (topic, *self._wildcards.match(topic)):
            for session, qos in self.get(topic_filter, ()):
                found[session.client_id] = max(qos, found.get(session.client_id, 0))
        return found


class Retained(dict[str, RetainedApplicationMessage]):
    """Topic -> its last retained message; it also knows who holds how much, and its topics in order."""

    def __init__(self, *, most: int, most_bytes: int) -> None:
        """`most` messages with `most_bytes` of payload for each publisher."""
        super().__init__()
        self._most = most
        self._most_bytes = most_bytes
        self._index = TopicIndex()
        self._held: dict[str, dict[str, int]] = {}

    def __setitem__(self, topic: str, kept: RetainedApplicationMessage) -> None:
        if topic in self:
            del self[topic]
        super().__setitem__(topic, kept)
        self._index.add(topic)
        self._held.setdefault(_publisher(kept), {})[topic] = len(kept.data)

    def __delitem__(self, topic: str) -> None:
        publisher = _publisher(self[topic])
        super().__delitem__(topic)
        self._index.discard(topic)
        held = self._held[publisher]
        del held[topic]
        if not held:
            del self._held[publisher]

    def clear(self) -> None:
        super().clear()
        self._index.clear()
        self._held.clear()

    def keep(self, publisher: Session | None, message: Message) -> bool:
        """The message is the topic's last; an empty payload clears it (MQTT 3.1.1, 3.3.1.3).

        Returns False when the publisher holds too much already; the topic has no retained message then.
        """
        topic = message.topic
        if topic in self:
            del self[topic]
        if not message.payload:
            return True
        held = self._held.get(publisher.client_id if publisher else "", {})
        if len(held) >= self._most or sum(held.values()) + len(message.payload) > self._most_bytes:
            return False
        self[topic] = RetainedApplicationMessage(publisher, topic, message.payload, message.qos)
        return True

    def forget(self, publisher: str) -> None:
        """Drop what a publisher, by its client id, has had retained."""
        for topic in list(self._held.get(publisher, ())):
            del self[topic]

    def matching(self, filters: Iterable[tuple[str, int]]) -> Iterator[tuple[Message, int]]:
        """Each message that new subscriptions (filter, granted QoS) bring, once, and the QoS to send it with."""
        found: dict[str, int] = {}
        for topic_filter, granted in filters:
            for topic in self._index.below(topic_filter):
                if packets.matches(topic_filter, topic):
                    found[topic] = max(granted, found.get(topic, 0))
        for topic, granted in found.items():
            kept = self[topic]
            qos = min(kept.qos or 0, granted)
            yield Message(topic, bytes(kept.data), qos=qos, retain=True), qos


def _publisher(kept: RetainedApplicationMessage) -> str:
    client_id: str | None = kept.source_session.client_id if kept.source_session else None
    return client_id or ""
