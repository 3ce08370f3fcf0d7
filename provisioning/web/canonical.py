"""The one log line of a request, and its count."""

from collections.abc import Mapping
from time import perf_counter
from types import MappingProxyType
from typing import Final, Literal

from aiohttp import web

from provisioning import log
from provisioning.metrics import Metrics
from provisioning.model.mqtt import Peer

METRICS: Final = web.AppKey("METRICS", Metrics)
"""Where an application keeps its metrics."""

NOTES: Final = web.RequestKey("NOTES", dict[str, object])

Outcome = Literal["accepted", "refused", "failed"]


def note(request: web.BaseRequest, **facts: object) -> None:
    """Add facts (product, device, group, serial, …) to the canonical line of `request`. Never a secret."""
    request.setdefault(NOTES, {}).update(facts)


class Line:
    """Begun when the request comes in: by the time that it ends, the connection may have forgotten its peer."""

    def __init__(self, request: web.BaseRequest, protocol: str, name: str, metrics: Metrics) -> None:
        self._began = perf_counter()
        self._request = request
        self._protocol = protocol
        self._name = name
        self._metrics = metrics
        self._peer = peer(request.protocol)

    def end(
        self,
        outcome: Outcome,
        reason: str = "",
        status: int | None = None,
        error: BaseException | None = None,
        detail: Mapping[str, object] = MappingProxyType({}),
    ) -> None:
        """Write the line and count the request. `status` is None where nobody is left to be answered.

        `error` makes it an error with a traceback; any other failure is a warning. The line's own keys win over
        `detail` and the notes.
        """
        seconds = perf_counter() - self._began
        self._metrics.request(self._protocol, self._name, outcome, seconds)
        line: dict[str, object] = {
            **detail,
            **self._request.get(NOTES, {}),
            "protocol": self._protocol,
            "method": self._request.method,
            "path": path(self._request),
            "peer": self._peer,
            "status": status,
            "outcome": outcome,
            "reason": reason,
            "ms": round(seconds * 1000, 3),
        }
        for reserved in ("event", "exc_info"):
            line.pop(reserved, None)
        logger, event = log.get(), f"http.{self._name}"
        if error is not None:
            logger.error(event, exc_info=error, **line)
        elif outcome == "failed":
            logger.warning(event, **line)
        else:
            logger.info(event, **line)


def path(request: web.BaseRequest) -> str:
    """The path as it was sent, without the query, which may hold secrets. Plain ASCII whatever was sent."""
    return request.rel_url.raw_path.encode("ascii", "backslashreplace").decode("ascii")


def peer(connection: web.RequestHandler) -> str:
    """Where a connection comes from; empty when the transport does not say."""
    name = connection.peername
    return str(Peer(name[0], name[1])) if isinstance(name, tuple) else ""


def is_gone(request: web.BaseRequest) -> bool:
    """True when the client has left before its answer."""
    return request.transport is None or request.transport.is_closing()
