"""Requests that belong to no operation: unknown path, wrong method, not HTTP at all. The answers are for people."""

from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Final

from aiohttp import hdrs, web

from provisioning import log
from provisioning.metrics import Metrics
from provisioning.web.canonical import METRICS, Line, Outcome, is_gone, path, peer

PROTOCOL: Final = "none"
NAME: Final = "request"

_WORDS: Final = {
    404: "there is nothing at this path",
    405: "this path does not take this method",
    417: "the only expectation that is met is 100-continue",
    431: "the header of the request is too large",
}

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@web.middleware
async def catch_strays(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer in JSON, with one canonical line, what no operation answers. The application must hold `METRICS`."""
    line = Line(request, PROTOCOL, NAME, request.app[METRICS])
    try:
        return await handler(request)
    except web.HTTPException as answer:
        if answer.status < HTTPStatus.BAD_REQUEST:  # a redirection is no error
            raise
        return turn_away(request, line, answer)
    except Exception as error:
        if is_gone(request):
            line.end("failed", "client_gone")
            raise ConnectionResetError("client gone") from error
        return broken(line, error)


def begin(request: web.BaseRequest, metrics: Metrics) -> Line:
    """The line of a request that never reached an application."""
    return Line(request, PROTOCOL, NAME, metrics)


def turn_away(request: web.BaseRequest, line: Line, answer: web.HTTPException) -> web.Response:
    """Say `answer` in JSON."""
    status = HTTPStatus(answer.status)
    words: dict[str, object] = {"error": _WORDS.get(status, status.phrase.lower()), "path": path(request)}
    headers = {}
    if isinstance(answer, web.HTTPMethodNotAllowed):
        words["allowed"] = sorted(answer.allowed_methods)
        headers[hdrs.ALLOW] = ", ".join(sorted(answer.allowed_methods))
    outcome: Outcome = "failed" if status >= HTTPStatus.INTERNAL_SERVER_ERROR else "refused"
    line.end(outcome, status.name.lower(), status)
    return web.json_response(words, status=status, headers=headers)


def broken(line: Line, error: BaseException) -> web.Response:
    """Something that nobody foresaw: the log gets the traceback, the client a plain answer."""
    line.end("failed", "internal", 500, error)
    return web.json_response({"error": "internal error"}, status=500)


def malformed(connection: web.RequestHandler, kind: str, metrics: Metrics) -> web.Response:
    """These bytes are no HTTP request. `kind` is the parser's name for it: its words may quote a header's secrets."""
    no_request(connection, "malformed", 0.0, metrics, status=400, kind=kind)
    return web.json_response({"error": f"not a well-formed HTTP/1.1 request ({kind})"}, status=400)


def no_request(connection: web.RequestHandler, reason: str, seconds: float, metrics: Metrics, **detail: object) -> None:
    """Write the line of what never became a request, after `seconds`: it has no method and no path."""
    metrics.request(PROTOCOL, NAME, "refused", seconds)
    log.get().info(
        f"http.{NAME}",
        protocol=PROTOCOL,
        peer=peer(connection),
        outcome="refused",
        reason=reason,
        ms=round(seconds * 1000, 3),
        **detail,
    )
