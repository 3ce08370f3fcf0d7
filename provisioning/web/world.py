"""What every HTTP operation may need, held by the application under one key."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from ipaddress import AddressValueError, IPv6Address
from typing import Final

from aiohttp import hdrs, web

from provisioning.core.enrolments import Enrolments
from provisioning.core.register import Registrations
from provisioning.core.updates import StopRule
from provisioning.credentials import CredentialsProvider
from provisioning.store.database import Database


@dataclass(slots=True)
class Endpoints:
    """The addresses that devices are told. A host left empty is the one by which the asking device reached us."""

    mqtt_scheme: str = "tcp"
    mqtt_host: str = ""
    mqtt_port: int = 0
    mqtts_host: str = ""
    mqtts_port: int = 0
    http_url: str = ""
    http_host: str = ""
    http_port: int = 0

    https_port: int = 0

    async def are_known(self) -> bool:
        """Does every listener accept? The last one to start is HTTPS."""
        return self.https_port != 0

    def murl(self, asked_host: str, *, tls: bool = False) -> str:
        """`scheme://host:port`, with nothing behind it; `tls`: for a device that must log in with a certificate."""
        if tls:
            return f"ssl://{self.mqtts_host or asked_host}:{self.mqtts_port}"
        return f"{self.mqtt_scheme}://{self.mqtt_host or asked_host}:{self.mqtt_port}"

    def hurl(self, asked_host: str) -> str:
        return self.http_url or f"http://{self.http_host or asked_host}:{self.http_port}"


@dataclass(frozen=True, slots=True, kw_only=True)
class PkiPolicy:
    """How certificates are issued and published."""

    url: str | Callable[[], str] = ""
    """Where devices reach this service over HTTP: `scheme://host[:port]`, or what tells it once the port is known.
    Empty: certificates name no CRL and no OCSP responder.
    """
    leaf_days: int = 730
    """Days that a certificate is valid when nobody states them."""
    max_leaf_days: int = 3_650
    crl_days: int = 7
    access_token: str | None = field(default=None, repr=False)
    """What applications show for a vendor's certificate service; None: it serves this machine only."""

    @property
    def base(self) -> str:
        return self.url if isinstance(self.url, str) else self.url()


def _now() -> datetime:
    return datetime.now(UTC)


@dataclass(slots=True)
class World:
    database: Database
    endpoints: Endpoints
    pki: PkiPolicy = field(default_factory=PkiPolicy)
    credentials: CredentialsProvider | None = None
    """Who gives devices credentials for their owner's cloud; None: nobody does."""
    stop_rule: StopRule = field(default_factory=StopRule)
    """When an update stops itself."""
    clock: Callable[[], datetime] = _now
    """What time it is, where a protocol lets the years of a device's life be tried out."""
    registrations: Registrations = field(init=False)
    enrolments: Enrolments = field(init=False)

    def __post_init__(self) -> None:
        self.registrations = Registrations(self.database)
        self.enrolments = Enrolments(self.database)

    async def close(self) -> None:
        """Serve those who wait for a batch."""
        await self.registrations.close()
        await self.enrolments.close()

    def now(self) -> datetime:
        """By the clock that is set at this moment."""
        return self.clock()


HOST: Final = re.compile(
    r"(?:(?P<name>[A-Za-z0-9](?:[A-Za-z0-9._-]{0,252}[A-Za-z0-9.])?)|\[(?P<ipv6>[0-9A-Fa-f:.]{2,45})\])(?::[0-9]{0,5})?"
)
"""A name or IPv4 address, or an IPv6 address in brackets; and a port."""

WORLD: Final = web.AppKey("WORLD", World)


def asked_host(request: web.Request) -> str:
    """The host by which a client reached us, without a port.

    It is the Host header's, if that is well formed (RFC 9110, 7.2): what devices are told is made of it. Otherwise it
    is the address of our end of the connection.
    """
    asked = HOST.fullmatch(request.headers.get(hdrs.HOST, ""))
    if asked and asked["name"]:
        return asked["name"]
    if asked and _is_ipv6(asked["ipv6"]):
        return f"[{asked['ipv6']}]"
    ours = request.transport.get_extra_info("sockname") if request.transport else None
    address = str(ours[0]).partition("%")[0] if ours else "127.0.0.1"
    return f"[{address}]" if ":" in address else address


def _is_ipv6(text: str) -> bool:
    try:
        IPv6Address(text)
    except AddressValueError:
        return False
    return True
