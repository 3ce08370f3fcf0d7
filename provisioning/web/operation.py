"""What stands around every HTTP operation: one deadline, one answer, one canonical line, one count."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from aiohttp import web

from provisioning.model.refusal import Reason, Refusal
from provisioning.web.canonical import METRICS, Line, is_gone, note

__all__ = ["METRICS", "REQUEST_TIMEOUT", "Handler", "Refuse", "note", "operation"]

REQUEST_TIMEOUT: Final = web.AppKey("REQUEST_TIMEOUT", float)
"""Seconds from the end of the request's header to its answer, the body's way here included."""

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Refuse = Callable[[Refusal], web.Response]

_OUR_FAULT: Final = frozenset({Reason.UNAVAILABLE, Reason.INTERNAL})


def operation(protocol: str, name: str, handler: Handler, refuse: Refuse) -> Handler:
    """Serve `handler` as the operation `name` of `protocol`; `refuse` writes a refusal in the vendor's shape.

    The application must hold `METRICS` and `REQUEST_TIMEOUT`. Whatever the handler raises becomes an answer:

        Refusal          its own answer; UNAVAILABLE and INTERNAL count as failed, all others as refused
        deadline         MALFORMED with field="body" while the body is still under way, else UNAVAILABLE
        client gone      outcome failed, reason client_gone; only a body still under way is interrupted by it
        cancellation     outcome failed, reason cancelled, and it goes on up: the service stops
        anything else    INTERNAL, and the traceback in the log
    """

    async def serve(request: web.Request) -> web.StreamResponse:
        line = Line(request, protocol, name, request.app[METRICS])
        try:
            response = await _in_time(request, handler)
        except Refusal as refusal:
            return _refused(line, refuse, refusal)
        except asyncio.CancelledError:
            line.end("failed", "cancelled")
            raise
        except Exception as error:  # noqa: BLE001 - nothing may reach a client as anything but an answer
            if is_gone(request):
                line.end("failed", "client_gone")
                return web.Response(status=400)  # nobody is there to read it
            return _refused(line, refuse, Refusal(Reason.INTERNAL), error)
        line.end("accepted", status=response.status)
        return response

    return serve


async def _in_time(request: web.Request, handler: Handler) -> web.StreamResponse:
    seconds = request.app[REQUEST_TIMEOUT]
    try:
        async with asyncio.timeout(seconds) as deadline:
            return await handler(request)
    except TimeoutError:
        if not deadline.expired():
            raise
        if request.content.is_eof():
            raise Refusal(Reason.UNAVAILABLE, timeout=seconds) from None
        raise Refusal(Reason.MALFORMED, field="body", timeout=seconds) from None


def _refused(line: Line, refuse: Refuse, refusal: Refusal, error: Exception | None = None) -> web.Response:
    try:
        response = refuse(refusal)
    except Exception as bug:  # noqa: BLE001 - a hole in a protocol's table still owes the client an answer
        response, error = web.json_response({"error": "internal error"}, status=500), bug
    if refusal.reason is Reason.INTERNAL and error is None:
        error = refusal
    line.end(
        "failed" if error is not None or refusal.reason in _OUR_FAULT else "refused",
        str(refusal.reason),
        response.status,
        error,
        refusal.detail,
    )
    return response
