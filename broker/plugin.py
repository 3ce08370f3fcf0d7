"""The admission as plugins of an amqtt broker.

The embedded broker loads `SessionRights` alone: whoever reaches it has been admitted by the listener. A stock amqtt broker
loads both, and so speaks the vendors' login schemes without our listener:

    plugins:
      broker.plugin.Admitted: {open: "provisioning.app:admissions"}
      broker.plugin.SessionRights: {}

`open` names an asynchronous context manager factory that gives the function which decides CONNECTs; `admit` takes the
function itself. What a stock broker leaves open (no deadlines, no limits, sessions that change hands before the login is
judged) stays open there: see docs/amqtt.md.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Final

import structlog
from amqtt.broker import BrokerContext
from amqtt.contexts import Action, BaseContext
from amqtt.mqtt.protocol.broker_handler import BrokerProtocolHandler
from amqtt.plugins.base import BaseAuthPlugin, BaseTopicPlugin
from amqtt.session import ApplicationMessage, Session

from provisioning.model.admission import Admission, Push, Verdict
from provisioning.model.mqtt import Connect, Peer

log = structlog.get_logger()

ADMISSION: Final = "gatehouse.admission"
"""Where a session keeps its admission, among its attributes."""

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


class SessionRights(BaseTopicPlugin):
    """Topic rights by the admission of the session; a session without one has none."""

    @dataclass
    class Config:
        pass

    async def topic_filtering(
        self, *, session: Session | None = None, topic: str | None = None, action: Action | None = None
    ) -> bool:
        admission = admission_of(session)
        if admission is None or not topic:
            return False
        match action:
            case Action.PUBLISH:
                return admission.rights.may_publish(topic)
            case Action.SUBSCRIBE:
                return admission.rights.may_subscribe(topic)
            case Action.RECEIVE:
                return admission.rights.may_receive(topic)
        return False


class Admitted(BaseAuthPlugin):
    """Login by the same admission as the listener's, and the push that a dynamic activation expects."""

    @dataclass
    class Config:
        admit: Any = None
        """The function that decides: (Connect, Peer) -> verdict."""
        open: str | None = None
        """`module:name` of a factory without arguments of an asynchronous context manager that gives that function."""

    def __init__(self, context: BaseContext) -> None:
        super().__init__(context)
        self._admit: Admit | None = self.config.admit
        self._stack = AsyncExitStack()
        self._pushes: dict[str, asyncio.Task[None]] = {}
        self._replies: dict[str, asyncio.Event] = {}

    async def on_broker_pre_start(self) -> None:
        if self._admit is None and self.config.open:
            module, _, name = self.config.open.partition(":")
            self._admit = await self._stack.enter_async_context(getattr(import_module(module), name)())

    async def close(self) -> None:
        for task in list(self._pushes.values()):
            task.cancel()
        await self._stack.aclose()

    async def authenticate(self, *, session: Session) -> bool | None:
        # amqtt may hand over a session that it kept from an earlier connection: nothing in it counts but this CONNECT.
        session.attributes.pop(ADMISSION, None)
        if self._admit is None:
            return False
        verdict = self._admit(connect_of(session), Peer(session.remote_address or "", session.remote_port or 0))
        if isinstance(verdict, Awaitable):
            verdict = await verdict
        if not isinstance(verdict, Admission):
            return False
        session.attributes[ADMISSION] = verdict
        return True

    async def on_broker_client_connected(self, *, client_id: str, client_session: Session) -> None:
        admission = admission_of(client_session)
        if admission is not None and admission.push is not None:
            task = asyncio.create_task(self._deliver(client_id, admission, admission.push))
            self._pushes[client_id] = task
            task.add_done_callback(lambda done: self._forget(client_id, done))

    def _forget(self, client_id: str, task: asyncio.Task[None]) -> None:
        if self._pushes.get(client_id) is task:
            del self._pushes[client_id]

    async def on_broker_client_disconnected(self, *, client_id: str, client_session: Session) -> None:  # noqa: ARG002
        if task := self._pushes.pop(client_id, None):
            task.cancel()

    async def on_broker_message_received(self, *, client_id: str, message: ApplicationMessage | None) -> None:
        """A good reply ends the push, as a PUBACK does."""
        context = self.context
        if message is None or client_id not in self._pushes or not isinstance(context, BrokerContext):
            return
        admission = admission_of(context.get_session(client_id))
        if admission is None or admission.push is None or message.topic != admission.push.reply_topic:
            return
        if admission.push.accepts(bytes(message.data)):
            self._pushes[client_id].cancel()

    async def _deliver(self, client_id: str, admission: Admission, push: Push) -> None:
        outcome, pushes = "failed", 0
        await asyncio.sleep(push.delay)
        for _ in range(1 + push.repeats):
            handler = self._handler(client_id)
            if handler is None:
                break
            pushes += 1
            try:
                async with asyncio.timeout(push.interval):
                    await handler.mqtt_publish(push.message.topic, push.message.payload, push.message.qos, retain=False)
            except TimeoutError:
                continue
            outcome = "accepted"
            break
        log.info(
            "mqtt.activate", protocol=admission.identity.protocol, product=admission.identity.product,
            device=admission.identity.device, outcome=outcome, pushes=pushes,
        )  # fmt: skip

    def _handler(self, client_id: str) -> BrokerProtocolHandler | None:
        """Straight to its own connection: a broadcast would reach everybody who subscribes to the topic."""
        assert isinstance(self.context, BrokerContext)
        _, handler = self.context._broker_instance.sessions.get(client_id, (None, None))  # noqa: SLF001
        return handler
