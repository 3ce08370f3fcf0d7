"""The admission as plugins of an amqtt broker.

The embedded broker loads `SessionRights` alone: whoever reaches it has been admitted by the listener. A stock amqtt
broker loads both, and so speaks the vendors' login schemes without our listener:

    plugins:
      broker.plugin.Admitted: {open: "provisioning.app:admissions"}
      broker.plugin.SessionRights: {}

`open` names an asynchronous context manager factory that gives the function which decides CONNECTs; `admit` takes that
function itself. What a stock broker leaves open (no deadlines, no limits, sessions that change hands before the login
is judged) stays open there: see docs/amqtt.md.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

import structlog
from amqtt.contexts import Action, BaseContext  # type: ignore[import-untyped]  # amqtt has no py.typed
from amqtt.errors import AMQTTError  # type: ignore[import-untyped]  # as above
from amqtt.plugins.base import BaseAuthPlugin, BaseTopicPlugin  # type: ignore[import-untyped]  # as above
from amqtt.session import ApplicationMessage, Session  # type: ignore[import-untyped]  # as above

from provisioning.model.admission import Admission, Push, Verdict
from provisioning.model.identity import Identity
from provisioning.model.mqtt import Connect, Peer

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

log = structlog.get_logger()

ADMISSION: Final = "gatehouse.admission"
"""Where a session keeps its admission, among its attributes."""
OWNER: Final = "gatehouse.owner"
"""Where it keeps the identity that it belongs to, for as long as the broker keeps the session."""
UNACKNOWLEDGED: Final = "gatehouse.unacknowledged"
"""True as long as a push to the session is not acknowledged."""

Admit = Callable[[Connect, Peer], Verdict | Awaitable[Verdict]]


def admission_of(session: Session | None) -> Admission | None:
    admission = session.attributes.get(ADMISSION) if session is not None else None
    return admission if isinstance(admission, Admission) else None


def connect_of(session: Session) -> Connect:
    """The CONNECT that a session came with, as far as amqtt has kept it."""
    return Connect(
        level=4, client_id=session.client_id or "", username=session.username,
        password=session.password.encode("utf-8", "surrogatepass") if session.password is not None else None,
        clean=bool(session.clean_session), keepalive=session.keep_alive,
    )  # fmt: skip


class SessionRights(BaseTopicPlugin):  # type: ignore[misc]  # amqtt has no py.typed
    """Topic rights by the admission of the session; a session without one has none."""

    @dataclass
    class Config:
        """It has no options."""

    async def topic_filtering(
        self, *, session: Session | None = None, topic: str | None = None, action: Action | None = None
    ) -> bool:
        admission = admission_of(session)
        if session is None or admission is None or not topic:
            return False
        match action:
            case Action.PUBLISH:
                if session.attributes.get(UNACKNOWLEDGED) and admission.push is not None:
                    return bool(topic == admission.push.reply_topic)
                return admission.rights.may_publish(topic)
            case Action.SUBSCRIBE:
                return admission.rights.may_subscribe(topic)
            case Action.RECEIVE:
                return admission.rights.may_receive(topic)
        return False


@dataclass(slots=True)
class _Delivery:
    """A push on its way."""

    session: Session
    admission: Admission
    push: Push
    replied: asyncio.Event = field(default_factory=asyncio.Event)
    """The device has answered."""
    acknowledged: bool = False
    put_off: bool = False
    """It has answered that it is not ready."""
    pushes: int = 0
    task: asyncio.Task[None] | None = None

    def acknowledge(self) -> None:
        self.acknowledged = True
        self.session.attributes.pop(UNACKNOWLEDGED, None)


class Admitted(BaseAuthPlugin):  # type: ignore[misc]  # amqtt has no py.typed
    """Login by the same admission as the listener's, and the push that a dynamic activation expects."""

    @dataclass
    class Config:
        """Where the decisions come from; without either nobody gets in."""

        admit: Any = None
        """The function that decides: (Connect, Peer) -> verdict."""
        open: str | None = None
        """`module:name` of a factory without arguments of an asynchronous context manager that gives that function."""

    def __init__(self, context: BaseContext) -> None:
        super().__init__(context)
        self._admit: Admit | None = self.config.admit
        self._deliveries: dict[str, _Delivery] = {}
        self._opened: asyncio.Task[None] | None = None
        self._closing = asyncio.Event()

    # --- the broker starts and stops ---

    async def on_broker_pre_start(self) -> None:
        """Raises: whatever the factory raises; amqtt starts all the same, and everybody is refused."""
        if self._admit is not None or not self.config.open:
            return
        ready: asyncio.Future[Admit] = asyncio.get_running_loop().create_future()
        self._opened = asyncio.create_task(self._hold_open(self.config.open, ready))
        try:
            self._admit = await ready
        except Exception as error:
            log.exception("plugin.open", open=self.config.open, outcome="failed", reason=str(error))
            raise

    async def _hold_open(self, name: str, ready: "asyncio.Future[Admit]") -> None:
        """One task enters the context and leaves it: amqtt calls its plugins from many."""
        try:
            module, _, attribute = name.partition(":")
            manager: AbstractAsyncContextManager[Admit] = getattr(import_module(module), attribute)()
            async with manager as admit:
                ready.set_result(admit)
                await self._closing.wait()
        except Exception as error:
            if ready.done():
                raise
            ready.set_exception(error)

    async def close(self) -> None:
        tasks = [delivery.task for delivery in self._deliveries.values() if delivery.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._admit = None
        self._closing.set()
        if self._opened is not None:
            await self._opened

    # --- login ---

    async def authenticate(self, *, session: Session) -> bool | None:
        # amqtt may hand over a session that it kept from an earlier connection: nothing in it counts but this CONNECT.
        session.attributes.pop(ADMISSION, None)
        session.attributes.pop(UNACKNOWLEDGED, None)
        if self._admit is None:
            return False
        verdict = self._admit(connect_of(session), Peer(session.remote_address or "", session.remote_port or 0))
        if isinstance(verdict, Awaitable):
            verdict = await verdict
        if not isinstance(verdict, Admission) or not self._owns(session, verdict.identity):
            session.parent = 0  # no refusal says "session present" [MQTT-3.2.2-4]
            return False
        session.attributes[ADMISSION] = verdict
        session.attributes[OWNER] = verdict.identity
        if verdict.push is not None:
            session.attributes[UNACKNOWLEDGED] = True
        may = verdict.push is None and verdict.limits.wills and verdict.rights.may_publish(session.will_topic or "")
        if session.will_flag and not may:
            session.will_flag = False  # amqtt publishes wills without asking for rights
        return True

    def _owns(self, session: Session, identity: Identity) -> bool:
        """Amqtt finds sessions by MQTT client id, which anybody may state: another's is not handed over."""
        owner = session.attributes.get(OWNER, identity)
        if owner != identity:
            log.warning(
                "mqtt.login", protocol=identity.protocol, product=identity.product, device=identity.device,
                outcome="refused", reason="session_of_another",
            )  # fmt: skip
        return bool(owner == identity)

    # --- the push ---

    async def on_broker_client_connected(self, *, client_id: str, client_session: Session) -> None:
        self._end(client_id)
        admission = admission_of(client_session)
        if admission is not None and admission.push is not None:
            delivery = _Delivery(client_session, admission, admission.push)
            self._deliveries[client_id] = delivery
            delivery.task = asyncio.create_task(self._deliver(client_id, delivery))

    async def on_broker_client_disconnected(self, *, client_id: str, client_session: Session) -> None:
        if (delivery := self._deliveries.get(client_id)) and delivery.session is client_session:
            self._end(client_id)

    def _end(self, client_id: str) -> None:
        delivery = self._deliveries.pop(client_id, None)
        if delivery is not None and delivery.task is not None:
            delivery.task.cancel()

    async def on_broker_message_received(self, *, client_id: str, message: ApplicationMessage | None) -> None:
        """A good reply ends the push; any other asks for it again."""
        delivery = self._deliveries.get(client_id)
        if message is None or delivery is None or message.topic != delivery.push.reply_topic or not delivery.pushes:
            return
        if delivery.push.accepts(bytes(message.data)):
            delivery.put_off = False
            delivery.acknowledge()
            delivery.replied.set()
        else:
            delivery.put_off = True

    async def _deliver(self, client_id: str, delivery: _Delivery) -> None:
        push = delivery.push
        try:
            await asyncio.sleep(push.delay)
            while delivery.pushes <= push.repeats and self._is_current(client_id, delivery):
                delivery.put_off = False
                until = asyncio.get_running_loop().time() + push.interval
                await self._push(client_id, delivery, until)
                if await _happens(delivery.replied, until) or (delivery.acknowledged and not delivery.put_off):
                    break
        finally:
            if self._deliveries.get(client_id) is delivery:
                del self._deliveries[client_id]
            identity = delivery.admission.identity
            log.info(
                "mqtt.activate", protocol=identity.protocol, product=identity.product, device=identity.device,
                outcome="accepted" if delivery.acknowledged else "failed", pushes=delivery.pushes,
            )  # fmt: skip

    async def _push(self, client_id: str, delivery: _Delivery, until: float) -> None:
        """Straight to its own connection: a broadcast would reach everybody who subscribes to the topic."""
        handler = self._sessions[client_id][1]
        message = delivery.push.message
        delivery.pushes += 1
        try:
            async with asyncio.timeout_at(until):
                await handler.mqtt_publish(message.topic, message.payload, message.qos, retain=False)
        except (TimeoutError, AMQTTError, OSError):
            return
        delivery.acknowledge()

    def _is_current(self, client_id: str, delivery: _Delivery) -> bool:
        """Is the connection still the one that was admitted to this push? amqtt hands client ids on."""
        session, _ = self._sessions.get(client_id, (None, None))
        return session is delivery.session and admission_of(session) is delivery.admission

    @property
    def _sessions(self) -> dict[str, tuple[Session, Any]]:
        sessions: dict[str, tuple[Session, Any]] = self.context._broker_instance.sessions  # noqa: SLF001 - no other way
        return sessions


async def _happens(event: asyncio.Event, until: float) -> bool:
    """Does the event happen before the moment `until` of the loop's clock?"""
    try:
        async with asyncio.timeout_at(until):
            await event.wait()
    except TimeoutError:
        return False
    return True
