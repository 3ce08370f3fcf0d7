"""The embedded amqtt broker: subscriptions, retained messages, wills and stored sessions of admitted devices.

It is amqtt's `Broker` with the tables and plugins that it has, and with other ways through them. amqtt serves a client
by half a dozen tasks, looks at every subscription for every message, and trusts its clients in ways that devices have
not earned (docs/amqtt.md lists them). Here an admitted connection hands over packets that are already read; each is
served at once, without a task; filters are found by index; every queue has an end.
"""

import asyncio
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from amqtt.broker import Broker  # type: ignore[import-untyped]  # amqtt has no py.typed
from amqtt.session import Session  # type: ignore[import-untyped]  # as above

from broker.client import Client
from broker.deadlines import Deadlines
from broker.seat import FAILURE, Link, Seat
from broker.tables import Retained, Subscriptions
from broker.topics import has_wildcard, is_served
from provisioning.model.admission import Admission
from provisioning.model.identity import Identity
from provisioning.model.mqtt import Connect, Message

CONFIG: Final[Mapping[str, Any]] = {
    "listeners": {"default": {"type": "external"}},
    # No plugin authenticates: amqtt refuses whoever comes by any other way than the listener.
    "plugins": {"broker.plugin.SessionRights": {}},
}

LONGEST_WORK: Final = 3.0
"""Seconds that answers under way may take when the broker stops."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Counts, bytes and seconds, each for one device; see `config/gatehouse.toml`."""

    max_subscriptions: int = 500
    max_wildcards: int = 100
    max_retained: int = 100
    max_retained_bytes: int = 4_194_304
    max_queued: int = 1_000
    max_queued_bytes: int = 4_194_304
    max_inflight: int = 64
    session_expiry: int = 86_400


class EmbeddedBroker(Broker):  # type: ignore[misc]  # amqtt has no py.typed
    """Serves the sessions that need a broker. Create it in a running loop, `start` it, `shutdown` it."""

    def __init__(self, limits: Limits) -> None:
        super().__init__(dict(CONFIG))
        self.limits = limits
        self.deadlines = Deadlines(self._loop)
        self.retained = Retained(most=limits.max_retained, most_bytes=limits.max_retained_bytes)
        self._subscriptions: Subscriptions = Subscriptions()
        self._retained_messages = self.retained
        self.delivered = 0
        self.dropped = 0
        self.refused = 0
        """Messages that a device was not allowed to publish, or that were too large."""
        self._work: set[asyncio.Task[None]] = set()

    # --- sessions ---

    def has_session(self, admission: Admission) -> bool:
        return str(admission.identity) in self._sessions

    def discard(self, admission: Admission) -> None:
        self._drop(admission.identity)

    def forget_device(self, identity: Identity) -> None:
        """The device is gone from the registry, or has lost its secret: nothing of it stays."""
        self._drop(identity)
        self.retained.forget(str(identity))

    def _drop(self, identity: Identity) -> None:
        client = self._client(str(identity))
        if client is not None:
            client.drop()

    def seat(self, link: Link, admission: Admission, connect: Connect, granted: Mapping[str, int]) -> Seat:
        client = self._client(str(admission.identity))
        if client is None:
            client = Client(self, admission)
            self._sessions[client.client_id] = (client.session, client)
        client.attach(link, admission, connect, granted)
        return client

    def leave(self, client: Client) -> None:
        """The client is no longer here, if it was."""
        if self._client(client.client_id) is client:
            del self._sessions[client.client_id]

    def expire_later(self, client: Client, seconds: float) -> None:
        self.deadlines.set(client, self._loop.time() + seconds)

    def _client(self, client_id: str) -> Client | None:
        _, client = self._sessions.get(client_id, (None, None))
        return client if isinstance(client, Client) else None

    def spawn(self, work: Coroutine[None, None, None]) -> None:
        """Do what takes its time; `shutdown` waits for it. At most one for each session: the session is held up."""
        task = self._loop.create_task(work)
        self._work.add(task)
        task.add_done_callback(self._work.discard)

    @property
    def queued(self) -> int:
        """Messages that wait for devices; counted on demand, for metrics."""
        return sum(client.queued for _, client in self._sessions.values() if isinstance(client, Client))

    # --- subscriptions ---

    def subscribe(self, client: Client, topic_filter: str, qos: int) -> int | None:
        """Grant a filter with at most QoS 1, in place of an earlier grant; None: refused."""
        if not is_served(topic_filter) or not client.admission.rights.may_subscribe(topic_filter):
            return None
        if topic_filter not in client.filters and (
            len(client.filters) >= self.limits.max_subscriptions
            or (has_wildcard(topic_filter) and client.wildcards >= self.limits.max_wildcards)
        ):
            return None
        granted = min(qos, 1)
        if topic_filter not in client.filters:
            client.wildcards += has_wildcard(topic_filter)
        self._subscriptions.add(topic_filter, client.session, granted)
        client.filters[topic_filter] = granted
        return granted

    def unsubscribe(self, client: Client, topic_filter: str) -> bool:
        """False: there was no such subscription."""
        if client.filters.pop(topic_filter, None) is None:
            return False
        client.wildcards -= has_wildcard(topic_filter)
        self._subscriptions.discard(topic_filter, client.session)
        return True

    # --- messages ---

    def route(self, message: Message) -> None:
        """Hand a message to its subscribers, each with the lower of the two QoS."""
        plain = replace(message, retain=False) if message.retain else message
        for client_id, granted in self._subscriptions.match(message.topic).items():
            client = self._client(client_id)
            if client is not None and client.admission.rights.may_receive(message.topic):
                client.deliver(plain, min(message.qos, granted))

    def granted(self, client: "Client", topic: str) -> int | None:
        """The QoS with which a client is subscribed to a topic; None: it is not."""
        return self._subscriptions.match(topic).get(client.client_id)

    def retain(self, publisher: Session | None, message: Message) -> None:
        if not self.retained.keep(publisher, message):
            self.dropped += 1

    # --- amqtt's own ways, led into ours ---

    async def add_subscription(self, subscription: tuple[str, int], session: Session) -> int:
        client = self._client(session.client_id or "")
        granted = self.subscribe(client, *subscription) if client else None
        return FAILURE if granted is None else granted

    async def retain_message(
        self,
        source_session: Session | None,
        topic_name: str | None,
        data: bytes | bytearray | None,
        qos: int | None = None,
    ) -> None:
        if topic_name:
            self.retain(source_session, Message(topic_name, bytes(data or b""), qos=min(qos or 0, 1), retain=True))

    async def _broadcast_message(
        self, session: Session | None, topic: str | None, data: bytes | bytearray | None, force_qos: int | None = None
    ) -> None:
        del session
        if topic and data is not None:
            self.route(Message(topic, bytes(data), qos=min(force_qos or 0, 1)))

    async def _broadcast_loop(self) -> None:
        """Nothing is ever queued for it: a message goes to its subscribers at once."""

    async def _session_monitor(self) -> None:
        """amqtt looks at every session once a second; here each has its own deadline."""  # noqa: D403 - it writes itself so

    async def _cleanup_session(self, client_id: str) -> None:
        if client := self._client(client_id):
            client.drop()
        else:
            self._sessions.pop(client_id, None)

    async def shutdown(self) -> None:
        if self._work:
            await asyncio.wait(self._work, timeout=LONGEST_WORK)
        for task in self._work:
            task.cancel()
        await super().shutdown()
        self.deadlines.close()
