"""The composition root: everything is made here, given what it needs, and taken down in reverse order.

    async with gatehouse(settings) as running      the whole service
    async with admissions() as decide              login decisions alone, for a stock amqtt broker

What the command line needs, the registry alone, is in `opening`.
"""

import asyncio
import gc
import os
import ssl
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from broker.embedded import EmbeddedBroker
from broker.listener import Listener
from broker.sessions import Sessions
from provisioning import demo as demo_fleet
from provisioning import log, tasks
from provisioning.admission import Admissions
from provisioning.application import base_url, make_applications, make_world
from provisioning.core.activate import LoginWrites
from provisioning.core.blocking import Blocker
from provisioning.core.gateway import Gateways
from provisioning.core.importing import Summary
from provisioning.core.presence import Presence, present
from provisioning.credentials import credentials_provider
from provisioning.doors import (
    broker_limits,
    listener_limits,
    open_door,
    open_more_doors,
    port_beside,
    tell_endpoints,
)
from provisioning.follow import Follower, following
from provisioning.gauges import watch
from provisioning.images import open_images
from provisioning.metrics import Metrics
from provisioning.model.events import Event, UpdateStopped
from provisioning.model.mqtt import Connect, Peer
from provisioning.opening import StartError, registry
from provisioning.outbox import Outbox, delivering
from provisioning.protocols import VendorProtocol, protocols
from provisioning.protocols.x509.wire import urls
from provisioning.sending import Policy
from provisioning.settings import Settings, load
from provisioning.store.credentials import Credentials
from provisioning.store.database import Database
from provisioning.store.holdings import Holdings
from provisioning.tls import ALPN, Tls
from provisioning.upkeep import care_for_accounts, care_for_certificates, for_accounts, prune
from provisioning.web.site import Site
from provisioning.web.world import Endpoints, World


def log_events(committed: Sequence[Event]) -> None:
    """One line for each event, now that it is durable."""
    for event in committed:
        identity = event.identity
        log.get().info(
            event.kind, protocol=identity.protocol, product=identity.product, device=identity.device,
            **({"serial": event.serial} if event.serial else {}),
            **({"update": event.update, "why": event.why} if isinstance(event, UpdateStopped) else {}),
        )  # fmt: skip


@dataclass(slots=True, kw_only=True)
class Running:
    """A service that accepts devices."""

    settings: Settings
    database: Database
    protocols: tuple[VendorProtocol, ...]
    sessions: Sessions
    broker: EmbeddedBroker
    credentials: Credentials
    presence: Presence
    metrics: Metrics
    mqtt: Listener
    mqtts: Listener
    http: Site
    https: Site
    endpoints: Endpoints
    tls: Tls
    world: World
    outbox: Outbox
    demo: Summary | None = None
    """What was loaded of the demo fleet at this start."""

    @property
    def ports(self) -> dict[str, int]:
        return {
            "http": self.http.port, "https": self.https.port, "mqtt": self.mqtt.port, "mqtts": self.mqtts.port,
        }  # fmt: skip

    @property
    def more_ports(self) -> dict[str, list[int]]:
        """Of the MQTT listeners, where they have further ones."""
        found = {"mqtt_more": self.mqtt.ports[1:], "mqtts_more": self.mqtts.ports[1:]}
        return {name: ports for name, ports in found.items() if ports}


@asynccontextmanager
async def gatehouse(settings: Settings) -> AsyncIterator[Running]:
    """The whole service, accepting devices as long as the block runs.

    Raises:
        StartError: something that it needs is not there, or an address is taken.
    """
    async with AsyncExitStack() as stack:
        database = await stack.enter_async_context(registry(settings, on_commit=log_events))
        vendors = protocols(settings, Gateways(database, most=settings.tencent.max_sub_devices))
        demo = await demo_fleet.load(database, settings, vendors)
        await demo_fleet.guard(database, settings)
        metrics = Metrics()
        judging = await _judging(stack, settings, database, vendors, metrics)
        sessions = Sessions()
        presence = await stack.enter_async_context(present(database, sessions.give_up))
        broker = await _broker(stack, settings)
        endpoints = Endpoints()
        tls = Tls(settings, database, lambda authority: urls(base_url(settings, endpoints), authority))
        new_delivery = asyncio.Event()
        follower = Follower(
            database, judging.credentials, judging.holdings, sessions, broker=broker, presence=presence,
            on_authority=tls.changed, on_delivery=new_delivery.set,
        )  # fmt: skip
        await stack.enter_async_context(following(database, follower))

        def listener() -> Listener:
            return Listener(
                judging.decisions.decide, broker, sessions, listener_limits(settings), came=presence.came,
                went=presence.went, on_acknowledged=judging.decisions.acknowledged,
            )  # fmt: skip

        images = await stack.enter_async_context(open_images(settings))
        provider = await stack.enter_async_context(credentials_provider(settings))
        world = make_world(settings, database, endpoints, provider)
        stack.push_async_callback(world.close)
        application = make_applications(settings, world, vendors, metrics, blocker=judging.blocker, images=images)
        outbox = await _outbox(stack, settings, world, metrics, new_delivery)

        def site(host: str, port: int, context: ssl.SSLContext | None = None) -> Site:
            return Site(
                application(), host=host, port=port, settings=settings.http, ssl_context=context,
                others=dict.fromkeys(ALPN, mqtts.begin),
            )  # fmt: skip

        mqtt, mqtts = listener(), listener()
        at = settings.mqtt.host, settings.mqtt.port
        await open_door(stack, "mqtt", at, mqtt.start(*at), mqtt.stop)
        await open_more_doors(mqtt, "mqtt", settings.mqtt.host, settings.mqtt.more_ports)
        tell_endpoints(endpoints, settings, mqtt.port)
        at = settings.http.host, settings.http.port
        http = site(*at)
        await open_door(stack, "http", at, http.start(), http.stop)
        endpoints.http_port = http.port
        await tls.start()
        at = settings.mqtts.host, port_beside(settings.mqtts.port, 18_883, settings.mqtt.port)
        await open_door(stack, "mqtts", at, mqtts.start(*at, tls.mqtts), mqtts.stop)
        await open_more_doors(mqtts, "mqtts", settings.mqtts.host, settings.mqtts.more_ports, tls.more_mqtts)
        endpoints.mqtts_port = mqtts.port
        at = settings.https.host, port_beside(settings.https.port, 8_443, settings.http.port)
        https = site(*at, tls.https)
        await open_door(stack, "https", at, https.start(), https.stop)
        endpoints.https_port = https.port
        running = Running(
            settings=settings, database=database, protocols=vendors, sessions=sessions, broker=broker,
            credentials=judging.credentials, presence=presence, metrics=metrics, mqtt=mqtt, mqtts=mqtts, http=http,
            https=https, endpoints=endpoints, tls=tls, world=world, outbox=outbox, demo=demo,
        )  # fmt: skip
        watch(
            metrics, database, sessions, broker, judging.credentials,
            listeners={"mqtt": mqtt, "mqtts": mqtts}, sites={"http": http, "https": https},
            queues={
                "look_up": judging.credentials, "login_write": judging.writes, "registration": world.registrations,
                "enrolment": world.enrolments, "presence": presence, "outbox": outbox,
            },
        )  # fmt: skip
        _begin_upkeep(stack, tls, world, settings, judging.holdings)
        _freeze()
        log.get().info("ready", pid=os.getpid(), **running.ports, **running.more_ports)
        yield running
        log.get().info("stopping", pid=os.getpid(), sessions=len(sessions))


def _freeze() -> None:
    """What lives as long as the process need not be looked at again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 50, 100)


def _begin_upkeep(stack: AsyncExitStack, tls: Tls, world: World, settings: Settings, holdings: Holdings) -> None:
    database = world.database
    for name, work in (
        ("tls", tls.run()),
        ("prune", prune(database, settings.events.keep_days)),
        ("certificates", care_for_certificates(database, holdings)),
        ("accounts", care_for_accounts(database, for_accounts(settings.ublox.keep_days), world.now)),
    ):
        stack.push_async_callback(tasks.end, asyncio.create_task(work, name=name))


async def _outbox(
    stack: AsyncExitStack, settings: Settings, world: World, metrics: Metrics, wake: asyncio.Event
) -> Outbox:
    """Raises: StartError: the authorities' certificates cannot be read."""
    of = settings.ublox
    policy = Policy(timeout=of.webhook_timeout, private=of.webhook_private, ca=of.webhook_ca)
    outbox = Outbox(world.database, policy, clock=world.now, metrics=metrics, wake=wake)
    try:
        await stack.enter_async_context(delivering(outbox))
    except OSError as error:
        raise StartError(f"webhook_ca: cannot use {policy.ca}: {error.strerror or error}") from error
    metrics.watch("dead_letters", "Webhook deliveries that were given up.", lambda: outbox.dead)
    return outbox


@dataclass(frozen=True, slots=True)
class Judging:
    """What decides logins."""

    credentials: Credentials
    holdings: Holdings
    writes: LoginWrites
    blocker: Blocker
    decisions: Admissions


async def _judging(
    stack: AsyncExitStack,
    settings: Settings,
    database: Database,
    vendors: tuple[VendorProtocol, ...],
    metrics: Metrics,
) -> Judging:
    credentials = Credentials(
        database, size=settings.cache.size, negative_ttl=settings.cache.negative_ttl, clock=time.monotonic
    )
    holdings = Holdings(database, size=settings.cache.size)
    writes = LoginWrites(database, limit=settings.enos.activation_retry)
    blocker = Blocker(
        refusals=settings.block.refusals, window=settings.block.window, duration=settings.block.duration,
        clock=time.monotonic,
    )  # fmt: skip
    decisions = Admissions(vendors, credentials, holdings, writes, blocker=blocker, metrics=metrics)
    for part in (writes, credentials, holdings, decisions):
        stack.push_async_callback(part.close)
    return Judging(credentials, holdings, writes, blocker, decisions)


@asynccontextmanager
async def admissions() -> AsyncIterator[Callable[[Connect, Peer], object]]:
    """Login decisions by the settings of this process, without listeners: for `broker.plugin.Admitted`."""
    settings = load()
    async with registry(settings, on_commit=log_events) as database, AsyncExitStack() as stack:
        judging = await _judging(stack, settings, database, protocols(settings), Metrics())
        follower = Follower(database, judging.credentials, judging.holdings, Sessions())
        await stack.enter_async_context(following(database, follower))
        yield judging.decisions.decide


async def _broker(stack: AsyncExitStack, settings: Settings) -> EmbeddedBroker:
    broker = EmbeddedBroker(broker_limits(settings))
    await broker.start()
    stack.push_async_callback(_shut_down, broker)
    return broker


async def _shut_down(broker: EmbeddedBroker) -> None:
    try:
        async with asyncio.timeout(5):
            await broker.shutdown()
    except TimeoutError:
        log.get().warning("broker.shutdown", outcome="failed", reason="timeout")
