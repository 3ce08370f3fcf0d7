"""The doors of the service: addresses that listeners are bound to, what is told of them, and how much they take."""

import errno
import os
import ssl
from collections.abc import Callable, Coroutine, Sequence
from contextlib import AsyncExitStack

from broker import embedded
from broker.listener import Limits, Listener
from provisioning.opening import StartError
from provisioning.settings import Settings
from provisioning.web.world import Endpoints


async def open_door(
    stack: AsyncExitStack,
    name: str,
    at: tuple[str, int],
    start: Coroutine[None, None, None],
    stop: Callable[[], Coroutine[None, None, None]],
) -> None:
    """Start a listener, and stop it with the service. Raises: StartError, when its address cannot be bound."""
    await _bind(name, "port", at, start)
    stack.push_async_callback(stop)


async def open_more_doors(
    listener: Listener, name: str, host: str, ports: Sequence[int], context: ssl.SSLContext | None = None
) -> None:
    """Let a listener that was started accept on further ports. Raises: StartError, as `open_door`."""
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


def port_beside(stated: int | None, usual: int, beside: int) -> int:
    """A port that is not stated is the usual one, or any free one where the listener beside it takes any."""
    return (usual if beside else 0) if stated is None else stated


def tell_endpoints(endpoints: Endpoints, settings: Settings, mqtt_port: int) -> None:
    """The configured addresses, or the ones that we listen on; a wildcard stands for what the device asked by."""
    endpoints.mqtt_port, endpoints.mqtt_host = mqtt_port, reachable(settings.mqtt.host)
    endpoints.mqtts_host, endpoints.http_host = reachable(settings.mqtts.host), reachable(settings.http.host)
    if settings.endpoints.murl:
        endpoints.mqtt_scheme, _, rest = settings.endpoints.murl.partition("://")
        endpoints.mqtt_host, _, port = rest.rpartition(":")
        endpoints.mqtts_host = endpoints.mqtt_host
        endpoints.mqtt_port = int(port)
    if settings.endpoints.hurl:
        endpoints.http_url = settings.endpoints.hurl


def reachable(host: str) -> str:
    if host in {"0.0.0.0", "::", ""}:  # noqa: S104 - compared, not bound
        return ""
    return f"[{host}]" if ":" in host else host


def listener_limits(settings: Settings) -> Limits:
    mqtt = settings.mqtt
    return Limits(
        connect_timeout=mqtt.connect_timeout, max_connections=mqtt.max_connections,
        max_per_address=mqtt.max_per_address, max_small_packet=mqtt.max_small_packet, max_packet=mqtt.max_packet,
        max_keepalive=mqtt.max_keepalive, default_keepalive=mqtt.default_keepalive,
        max_subscriptions=mqtt.max_subscriptions, session_expiry=mqtt.session_expiry,
    )  # fmt: skip


def broker_limits(settings: Settings) -> embedded.Limits:
    mqtt = settings.mqtt
    return embedded.Limits(
        max_subscriptions=mqtt.max_subscriptions, max_wildcards=mqtt.max_wildcards, max_retained=mqtt.max_retained,
        max_retained_bytes=mqtt.max_retained_bytes, max_queued=mqtt.max_queued,
        max_queued_bytes=mqtt.max_queued_bytes, max_inflight=mqtt.max_inflight, session_expiry=mqtt.session_expiry,
    )  # fmt: skip
