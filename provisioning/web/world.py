"""What every HTTP operation may need, held by the application under one key."""

from dataclasses import dataclass
from typing import Final

from aiohttp import web

from provisioning.store.database import Database


@dataclass(slots=True)
class Endpoints:
    """The addresses that devices are told. A host left empty is the one by which the asking device reached us."""

    mqtt_scheme: str = "tcp"
    mqtt_host: str = ""
    mqtt_port: int = 0
    http_url: str = ""
    http_port: int = 0

    def murl(self, asked_host: str) -> str:
        """`scheme://host:port`, with nothing behind it."""
        return f"{self.mqtt_scheme}://{self.mqtt_host or asked_host}:{self.mqtt_port}"

    def hurl(self, asked_host: str) -> str:
        return self.http_url or f"http://{asked_host}:{self.http_port}"


@dataclass(slots=True)
class World:
    database: Database
    endpoints: Endpoints


WORLD: Final = web.AppKey("WORLD", World)


def asked_host(request: web.Request) -> str:
    """The host name of the request, without its port."""
    host = request.host
    name = host if host.endswith("]") else host.rpartition(":")[0] or host
    return name or "127.0.0.1"
