"""The composition root: everything is made here, given what it needs, and taken down in reverse order.

    async with gatehouse(settings) as running      the whole service
    async with admissions() as decide              login decisions alone, for a stock amqtt broker

What the command line needs, the registry alone, is in `opening`.
"""

import asyncio
import gc
import os
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Final

from aiohttp import web

from broker import embedded
from broker.embedded import EmbeddedBroker
from broker.listener import Limits, Listener
from broker.sessions import Sessions
from provisioning import demo as demo_fleet
from provisioning import log
from provisioning.admission import Admissions
from provisioning.core.activate import LoginWrites
from provisioning.core.blocking import Blocker
from provisioning.core.importing import Summary
from provisioning.core.presence import Presence, present
from provisioning.follow import following
from provisioning.metrics import Metrics
from provisioning.model.events import Event
from provisioning.model.mqtt import Connect, Peer
from provisioning.model.refusal import Refusal
from provisioning.opening import StartError, registry
from provisioning.protocols import VendorProtocol, protocols
from provisioning.settings import Settings, load
from provisioning.store import events
from provisioning.store.credentials import Credentials
from provisioning.store.database import Database
from provisioning.web import health
from provisioning.web.operation import METRICS, REQUEST_TIMEOUT
from provisioning.web.site import Site
from provisioning.web.stray import catch_strays
from provisioning.web.world import WORLD, Endpoints, World

PRUNE_EVERY: Final = 3_600.0


def log_events(committed: Sequence[Event]) -> None:
    """One line for each event, now that it is durable."""
    for event in committed:
        identity = event.identity
        log.get().info(
            event.kind, protocol=identity.protocol, product=identity.product, device=identity.device,
            **({"serial": event.serial} if event.serial else {}),
        )  # fmt: skip


@dataclass(slots=True)
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
    http: Site
    endpoints: Endpoints
    demo: Summary | None = None
    """What was loaded of the demo fleet at this start."""

    @property
    def ports(self) -> dict[str, int]:
        return {"http": self.http.port, "mqtt": self.mqtt.port}


@asynccontextmanager
async def gatehouse(settings: Settings) -> AsyncIterator[Running]:
    """The whole service, accepting devices as long as the block runs.

    Raises:
        StartError: something that it needs is not there, or an address is taken.
    """
    async with AsyncExitStack() as stack:
        database = await stack.enter_async_context(registry(settings, on_commit=log_events))
        vendors = protocols(settings)
        demo = await demo_fleet.load(database, settings.demo, vendors)
        await demo_fleet.guard(database, settings)
        metrics = Metrics()
        credentials, writes, decisions = _decisions(settings, database, vendors, metrics)
        stack.push_async_callback(writes.close)
        stack.push_async_callback(credentials.close)
        stack.push_async_callback(decisions.close)
        presence = await stack.enter_async_context(present(database))
        broker = EmbeddedBroker(_broker_limits(settings))
        await broker.start()
        stack.push_async_callback(_shut_down, broker)
        sessions = Sessions()
        await stack.enter_async_context(following(database, credentials, sessions, broker))
        mqtt = Listener(
            decisions.decide, broker, sessions, _listener_limits(settings),
            came=presence.came, went=presence.went, on_acknowledged=decisions.acknowledged,
        )  # fmt: skip
        try:
            await mqtt.start(settings.mqtt.host, settings.mqtt.port)
        except OSError as error:
            raise StartError(f"mqtt: cannot listen on {settings.mqtt.host}:{settings.mqtt.port}: {error}") from error
        stack.push_async_callback(mqtt.stop)
        endpoints = _endpoints(settings, mqtt.port)
        http = Site(
            _application(settings, database, vendors, metrics, endpoints),
            host=settings.http.host, port=settings.http.port, settings=settings.http,
        )  # fmt: skip
        try:
            await http.start()
        except OSError as error:
            raise StartError(f"http: cannot listen on {settings.http.host}:{settings.http.port}: {error}") from error
        stack.push_async_callback(http.stop)
        endpoints.http_port = http.port
        running = Running(
            settings, database, vendors, sessions, broker, credentials, presence, metrics, mqtt, http, endpoints, demo
        )
        _watch(running, writes)
        pruning = asyncio.create_task(_prune(database, settings.events.keep_days), name="prune")
        stack.push_async_callback(_cancel, pruning)
        gc.collect()
        gc.freeze()  # what lives as long as the process need not be looked at again
        gc.set_threshold(50_000, 50, 100)
        log.get().info("ready", pid=os.getpid(), **running.ports)
        yield running
        log.get().info("stopping", pid=os.getpid(), sessions=len(sessions))


def _decisions(
    settings: Settings, database: Database, vendors: tuple[VendorProtocol, ...], metrics: Metrics
) -> tuple[Credentials, LoginWrites, Admissions]:
    credentials = Credentials(
        database, size=settings.cache.size, negative_ttl=settings.cache.negative_ttl, clock=time.monotonic
    )
    writes = LoginWrites(database, limit=settings.enos.activation_retry)
    blocker = Blocker(
        refusals=settings.block.refusals, window=settings.block.window, duration=settings.block.duration,
        clock=time.monotonic,
    )  # fmt: skip
    return credentials, writes, Admissions(vendors, credentials, writes, blocker, metrics)


@asynccontextmanager
async def admissions() -> AsyncIterator[Callable[[Connect, Peer], object]]:
    """Login decisions by the settings of this process, without listeners: for `broker.plugin.Admitted`."""
    settings = load()
    async with registry(settings, on_commit=log_events) as database, AsyncExitStack() as stack:
        credentials, writes, decisions = _decisions(settings, database, protocols(settings), Metrics())
        stack.push_async_callback(writes.close)
        stack.push_async_callback(credentials.close)
        await stack.enter_async_context(following(database, credentials, Sessions(), None))
        yield decisions.decide


# --- parts ---


def _endpoints(settings: Settings, mqtt_port: int) -> Endpoints:
    """The configured addresses, or the ones that we listen on; a wildcard stands for what the device asked by."""
    endpoints = Endpoints(mqtt_port=mqtt_port, mqtt_host=_reachable(settings.mqtt.host))
    if settings.endpoints.murl:
        endpoints.mqtt_scheme, _, rest = settings.endpoints.murl.partition("://")
        endpoints.mqtt_host, _, port = rest.rpartition(":")
        endpoints.mqtt_port = int(port)
    if settings.endpoints.hurl:
        endpoints.http_url = settings.endpoints.hurl
    return endpoints


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
        max_subscriptions=mqtt.max_subscriptions, max_retained=mqtt.max_retained,
        max_retained_bytes=mqtt.max_retained_bytes, max_queued=mqtt.max_queued,
        max_queued_bytes=mqtt.max_queued_bytes, max_inflight=mqtt.max_inflight, session_expiry=mqtt.session_expiry,
    )  # fmt: skip


def _application(
    settings: Settings,
    database: Database,
    vendors: tuple[VendorProtocol, ...],
    metrics: Metrics,
    endpoints: Endpoints,
) -> web.Application:
    app = web.Application(middlewares=[catch_strays])
    app[WORLD] = World(database, endpoints)
    app[METRICS] = metrics
    app[REQUEST_TIMEOUT] = settings.http.request_timeout
    app[health.READINESS] = {"database": database.answers}
    app.add_routes(health.routes())
    for vendor in vendors:
        app.add_routes(vendor.routes())
    return app


def _watch(running: Running, writes: LoginWrites) -> None:
    watch, pool, mqtt = running.metrics.watch, running.database.pool, running.mqtt
    watch("sessions", "Devices that are logged in.", lambda: len(running.sessions))
    watch("connections", "Open connections.", lambda: len(mqtt.connections), listener="mqtt")
    watch("connections", "Open connections.", lambda: running.http.connections, listener="http")
    watch("pool_connections", "Connections to the database.", pool.get_size, state="open")
    watch("pool_connections", "Connections to the database.", pool.get_idle_size, state="idle")
    watch(
        "queue_depth", "What waits for the database or for devices.", lambda: running.credentials.depth, queue="look_up"
    )
    watch("queue_depth", "What waits for the database or for devices.", lambda: writes.depth, queue="login_write")
    watch(
        "queue_depth", "What waits for the database or for devices.", lambda: running.presence.depth, queue="presence"
    )
    watch("queue_depth", "What waits for the database or for devices.", lambda: running.broker.queued, queue="messages")
    watch("credentials_cached", "Entries of the credential cache.", lambda: len(running.credentials))
    watch("broker_messages", "Messages of devices.", lambda: mqtt.totals.received, direction="received")
    watch("broker_messages", "Messages of devices.", lambda: mqtt.totals.sent, direction="sent")
    watch("broker_messages", "Messages of devices.", lambda: running.broker.dropped, direction="dropped")


async def _prune(database: Database, keep_days: int) -> None:
    """Delete old events, a batch at a time."""
    while True:
        try:
            async with database.begin() as tx:
                count = await events.prune(tx, keep_days)
        except Refusal as refusal:
            log.get().warning("events.prune", outcome="failed", reason=str(refusal.reason))
            count = 0
        await asyncio.sleep(1.0 if count else PRUNE_EVERY)


async def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


async def _shut_down(broker: EmbeddedBroker) -> None:
    try:
        await asyncio.wait_for(broker.shutdown(), 5)
    except TimeoutError:
        log.get().warning("broker.shutdown", outcome="failed", reason="timeout")
