"""The composition root: everything is made here, given what it needs, and taken down in reverse order.

    async with gatehouse(settings) as running      the whole service
    async with admissions() as decide              login decisions alone, for a stock amqtt broker

What the command line needs, the registry alone, is in `opening`.
"""

import asyncio
import errno
import gc
import os
import ssl
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from aiohttp import web

from broker import embedded
from broker.embedded import EmbeddedBroker
from broker.listener import Limits, Listener
from broker.sessions import Sessions
from provisioning import demo as demo_fleet
from provisioning import log, tasks
from provisioning.admission import Admissions
from provisioning.core.activate import LoginWrites
from provisioning.core.blocking import Blocker
from provisioning.core.gateway import Gateways
from provisioning.core.importing import Summary
from provisioning.core.presence import Presence, present
from provisioning.core.register import Registrations
from provisioning.core.updates import StopRule
from provisioning.credentials import CredentialsProvider, credentials_provider
from provisioning.follow import Follower, following
from provisioning.gauges import watch
from provisioning.images import DiskImages, RemoteImages, open_images
from provisioning.metrics import Metrics
from provisioning.model.events import Event, UpdateStopped
from provisioning.model.mqtt import Connect, Peer
from provisioning.opening import StartError, registry
from provisioning.outbox import Outbox, delivering
from provisioning.protocols import VendorProtocol, protocols, shared_routes
from provisioning.protocols.x509 import est
from provisioning.protocols.x509 import http as published
from provisioning.protocols.x509.wire import urls
from provisioning.sending import Policy
from provisioning.settings import Settings, load
from provisioning.store.credentials import Credentials
from provisioning.store.database import Database
from provisioning.store.holdings import Holdings
from provisioning.tls import ALPN, Tls
from provisioning.upkeep import care_for_accounts, care_for_certificates, for_accounts, prune
from provisioning.web import downloads, health
from provisioning.web.operation import METRICS, REQUEST_TIMEOUT
from provisioning.web.site import Site
from provisioning.web.stray import catch_strays
from provisioning.web.world import WORLD, Endpoints, PkiPolicy, World


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
        tls = Tls(settings, database, lambda authority: urls(_base(settings, endpoints), authority))
        new_delivery = asyncio.Event()
        follower = Follower(
            database, judging.credentials, judging.holdings, sessions, broker=broker, presence=presence,
            on_authority=tls.changed, on_delivery=new_delivery.set,
        )  # fmt: skip
        await stack.enter_async_context(following(database, follower))

        def listener() -> Listener:
            return Listener(
                judging.decisions.decide, broker, sessions, _listener_limits(settings), came=presence.came,
                went=presence.went, on_acknowledged=judging.decisions.acknowledged,
            )  # fmt: skip

        registrations = Registrations(database)
        stack.push_async_callback(registrations.close)
        images = await stack.enter_async_context(open_images(settings))
        provider = await stack.enter_async_context(credentials_provider(settings))
        world = _world(settings, database, endpoints, registrations, provider)
        application = _application(settings, world, vendors, metrics, blocker=judging.blocker, images=images)
        outbox = await _outbox(stack, settings, world, metrics, new_delivery)

        def site(host: str, port: int, context: ssl.SSLContext | None = None) -> Site:
            return Site(
                application(), host=host, port=port, settings=settings.http, ssl_context=context,
                others=dict.fromkeys(ALPN, mqtts.begin),
            )  # fmt: skip

        mqtt, mqtts = listener(), listener()
        at = settings.mqtt.host, settings.mqtt.port
        await _open(stack, "mqtt", at, mqtt.start(*at), mqtt.stop)
        await _open_more(mqtt, "mqtt", settings.mqtt.host, settings.mqtt.more_ports)
        _tell_endpoints(endpoints, settings, mqtt.port)
        at = settings.http.host, settings.http.port
        http = site(*at)
        await _open(stack, "http", at, http.start(), http.stop)
        endpoints.http_port = http.port
        await tls.start()
        at = settings.mqtts.host, _port(settings.mqtts.port, 18_883, settings.mqtt.port)
        await _open(stack, "mqtts", at, mqtts.start(*at, tls.mqtts), mqtts.stop)
        await _open_more(mqtts, "mqtts", settings.mqtts.host, settings.mqtts.more_ports, tls.more_mqtts)
        endpoints.mqtts_port = mqtts.port
        at = settings.https.host, _port(settings.https.port, 8_443, settings.http.port)
        https = site(*at, tls.https)
        await _open(stack, "https", at, https.start(), https.stop)
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
                "look_up": judging.credentials, "login_write": judging.writes, "registration": registrations,
                "presence": presence, "outbox": outbox,
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


async def _open(
    stack: AsyncExitStack,
    name: str,
    at: tuple[str, int],
    start: Coroutine[None, None, None],
    stop: Callable[[], Coroutine[None, None, None]],
) -> None:
    """Start a listener, and stop it with the service. Raises: StartError, when its address cannot be bound."""
    await _bind(name, "port", at, start)
    stack.push_async_callback(stop)


async def _open_more(
    listener: Listener, name: str, host: str, ports: Sequence[int], context: ssl.SSLContext | None = None
) -> None:
    """Let a listener that was started accept on further ports. Raises: StartError, as `_open`."""
    for port in ports:
        await _bind(name, "more_ports", (host, port), listener.start(host, port, context))


async def _bind(name: str, setting: str, at: tuple[str, int], start: Coroutine[None, None, None]) -> None:
    try:
        await start
    except OSError as error:
        raise StartError(f"{name}: cannot listen on {at[0]}:{at[1]}: {_why_not(name, setting, error)}") from error


def _why_not(name: str, setting: str, error: OSError) -> str:
    """In words of the system: those of asyncio repeat the address."""
    number = error.errno or 0
    if number == errno.EADDRINUSE:
        return f"the address is in use; another port by GATEHOUSE_{name.upper()}__{setting.upper()}"
    return os.strerror(number).lower() if number in errno.errorcode else error.strerror or str(error)


def _port(stated: int | None, usual: int, beside: int) -> int:
    """A port that is not stated is the usual one, or any free one where the listener beside it takes any."""
    return (usual if beside else 0) if stated is None else stated


def _base(settings: Settings, endpoints: Endpoints) -> str:
    """Where devices find what authorities publish."""
    return (settings.pki.url or endpoints.hurl(_reachable(settings.http.host) or "127.0.0.1")).rstrip("/")


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


# --- parts ---


def _tell_endpoints(endpoints: Endpoints, settings: Settings, mqtt_port: int) -> None:
    """The configured addresses, or the ones that we listen on; a wildcard stands for what the device asked by."""
    endpoints.mqtt_port, endpoints.mqtt_host = mqtt_port, _reachable(settings.mqtt.host)
    endpoints.mqtts_host, endpoints.http_host = _reachable(settings.mqtts.host), _reachable(settings.http.host)
    if settings.endpoints.murl:
        endpoints.mqtt_scheme, _, rest = settings.endpoints.murl.partition("://")
        endpoints.mqtt_host, _, port = rest.rpartition(":")
        endpoints.mqtts_host = endpoints.mqtt_host
        endpoints.mqtt_port = int(port)
    if settings.endpoints.hurl:
        endpoints.http_url = settings.endpoints.hurl


def _reachable(host: str) -> str:
    if host in {"0.0.0.0", "::", ""}:  # noqa: S104 - compared, not bound
        return ""
    return f"[{host}]" if ":" in host else host


def _listener_limits(settings: Settings) -> Limits:
    mqtt = settings.mqtt
    return Limits(
        connect_timeout=mqtt.connect_timeout, max_connections=mqtt.max_connections,
        max_per_address=mqtt.max_per_address, max_small_packet=mqtt.max_small_packet, max_packet=mqtt.max_packet,
        max_keepalive=mqtt.max_keepalive, default_keepalive=mqtt.default_keepalive,
        max_subscriptions=mqtt.max_subscriptions, session_expiry=mqtt.session_expiry,
    )  # fmt: skip


def _broker_limits(settings: Settings) -> embedded.Limits:
    mqtt = settings.mqtt
    return embedded.Limits(
        max_subscriptions=mqtt.max_subscriptions, max_wildcards=mqtt.max_wildcards, max_retained=mqtt.max_retained,
        max_retained_bytes=mqtt.max_retained_bytes, max_queued=mqtt.max_queued,
        max_queued_bytes=mqtt.max_queued_bytes, max_inflight=mqtt.max_inflight, session_expiry=mqtt.session_expiry,
    )  # fmt: skip


def _world(
    settings: Settings,
    database: Database,
    endpoints: Endpoints,
    registrations: Registrations,
    provider: CredentialsProvider,
) -> World:
    token = settings.pki.access_token
    policy = PkiPolicy(
        url=lambda: _base(settings, endpoints), leaf_days=settings.pki.leaf_days,
        max_leaf_days=settings.pki.max_leaf_days, crl_days=settings.pki.crl_days,
        access_token=token.get_secret_value() if token else None,
    )  # fmt: skip
    return World(
        database, endpoints, policy, registrations=registrations, credentials=provider,
        stop_rule=StopRule(after=settings.updates.stop_after, share=settings.updates.stop_share),
    )  # fmt: skip


def _application(
    settings: Settings,
    world: World,
    vendors: tuple[VendorProtocol, ...],
    metrics: Metrics,
    *,
    blocker: Blocker,
    images: DiskImages | RemoteImages,
) -> Callable[[], web.Application]:
    """Makes the application, once for each site."""
    routes = [  # once for both: they keep what they have made, a CRL for instance
        *health.routes(),
        *published.routes(),
        *downloads.routes(images, settings.images.download_timeout),
        *est.routes([vendor.read_user for vendor in vendors], blocker),
        *(route for vendor in vendors for route in vendor.routes()),
        *shared_routes(vendors),
    ]

    def make() -> web.Application:
        app = web.Application(middlewares=[catch_strays])
        app[WORLD] = world
        app[METRICS] = metrics
        app[REQUEST_TIMEOUT] = settings.http.request_timeout
        app[health.READINESS] = {"database": world.database.answers, "listeners": world.endpoints.are_known}
        app.add_routes(routes)
        return app

    return make


async def _broker(stack: AsyncExitStack, settings: Settings) -> EmbeddedBroker:
    broker = EmbeddedBroker(_broker_limits(settings))
    await broker.start()
    stack.push_async_callback(_shut_down, broker)
    return broker


async def _shut_down(broker: EmbeddedBroker) -> None:
    try:
        async with asyncio.timeout(5):
            await broker.shutdown()
    except TimeoutError:
        log.get().warning("broker.shutdown", outcome="failed", reason="timeout")
