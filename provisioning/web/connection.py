"""One HTTP connection: aiohttp's, and the limits that it lacks.

Deadline of a request's header, total size of a header, deadline of writing an answer; a broken body wakes its reader;
bytes that are no HTTP cost one answer and one line, not a traceback. Private names of aiohttp that are used here:
`_waiter`, `_messages`, `_request_count`, `_task_handler`; tests/provisioning/web/test_connection.py holds them to their
meaning.
"""

import asyncio
from typing import Final, Protocol, cast

from aiohttp import StreamReader, web
from aiohttp.http import HttpProcessingError, RawRequestMessage

from provisioning.metrics import Metrics
from provisioning.web import canonical, stray

MAX_LINE: Final = 8_192
"""Bytes of the request line, and of one header field."""
MAX_FIELDS: Final = 64
MAX_HEADER: Final = 65_536
"""Bytes of a header that may arrive before it must be complete."""
READ_BUFFER: Final = 65_536
"""Bytes of body that wait for their reader before the socket is left alone."""
LINGER: Final = 2.0
"""Seconds in which an unread body is read away, so that a reset does not overtake the answer (RFC 9112, 9.6)."""

ANSWER_TIMEOUT: Final = web.RequestKey("ANSWER_TIMEOUT", float)
"""Seconds that writing this answer may take, where it is not the site's deadline: a large file on a slow line."""

_TOO_LARGE: Final = b"HTTP/1.1 431 Request Header Fields Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


class House(Protocol):
    """What a connection asks of the site that it belongs to."""

    metrics: Metrics
    header_timeout: float
    answer_timeout: float

    def enter(self, connection: "Connection") -> bool:
        """Whether this connection may stay."""
        ...

    def leave(self, connection: "Connection") -> None: ...


class Connection(web.RequestHandler):
    __slots__ = ("_began", "_body", "_deadline", "_header_bytes", "_house", "_last", "_wire")

    def __init__(
        self, server: web.Server, house: House, *, loop: asyncio.AbstractEventLoop, keepalive_timeout: float
    ) -> None:
        super().__init__(
            server,
            loop=loop,
            keepalive_timeout=keepalive_timeout,
            access_log=None,  # type: ignore[arg-type] # None means none, whatever the annotation says
            max_line_size=MAX_LINE,
            max_field_size=MAX_LINE,
            max_headers=MAX_FIELDS,
            lingering_time=LINGER,
            read_bufsize=READ_BUFFER,
            auto_decompress=False,  # a compressed body is refused unread; nothing here may inflate it
        )
        self._house = house
        self._wire: asyncio.Transport | None = None
        self._deadline: asyncio.TimerHandle | None = None
        self._began = 0.0
        self._header_bytes = 0
        self._body: StreamReader | None = None
        self._last = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        wire = cast("asyncio.Transport", transport)
        if not self._house.enter(self):
            wire.abort()
            return
        self._wire = wire
        super().connection_made(transport)
        self._expect_header()

    def connection_lost(self, exc: BaseException | None) -> None:
        if self._wire is None:
            return
        self._wire = None
        self._header_came()
        super().connection_lost(exc)
        self._house.leave(self)

    def data_received(self, data: bytes) -> None:
        if self._wire is None:
            return
        before = self._request_count
        super().data_received(data)
        if self._request_count != before:
            self._header_came()
            self._take_body()
        elif data and self.is_idle:
            self._header_bytes += len(data)
            if self._deadline is None:
                self._expect_header()
            if self._header_bytes > MAX_HEADER:
                self._cut_off("header_too_large", _TOO_LARGE)

    @property
    def is_idle(self) -> bool:
        """No request is in progress."""
        return self._request_count == 0 or (self._waiter is not None and not self._waiter.done())

    def retire(self) -> None:
        """Take no further request: close now, or after the answer to the one in progress."""
        self._last = True
        if self.is_idle:
            self.force_close()

    def abort(self) -> None:
        """Close now, and wait for nobody."""
        if self._wire is not None:
            self._wire.abort()

    @property
    def task(self) -> asyncio.Task[None] | None:
        """What serves the connection's requests; None when it is done."""
        return self._task_handler

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """Write the answer within a deadline; say `Connection: close` where the connection cannot go on."""
        if isinstance(resp, web.HTTPException) and resp.status >= 400:  # noqa: PLR2004
            # what aiohttp itself refuses before any middleware runs: an expectation that cannot be met
            resp = stray.turn_away(request, stray.begin(request, self._house.metrics), resp)
        if not resp.prepared and request.writer.output_size > 0:
            # half of another answer is on the wire: a second one would only be mistaken for a part of it
            self.abort()
            return resp, True
        if self._last or not request.content.is_eof():
            resp.force_close()
        try:
            async with asyncio.timeout(request.get(ANSWER_TIMEOUT, self._house.answer_timeout)):
                return await super().finish_response(request, resp, start_time)
        except TimeoutError:
            self.abort()
            return resp, True

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,  # noqa: ARG002 - aiohttp's signature
        exc: BaseException | None = None,
        message: str | None = None,  # noqa: ARG002 - it may quote secrets
    ) -> web.StreamResponse:
        """One answer and one line for what is no HTTP, and for whatever escaped the application.

        Raises:
            ConnectionResetError: the client is gone; aiohttp takes that in silence.
        """
        if isinstance(exc, HttpProcessingError):
            response = stray.malformed(self, type(exc).__name__, self._house.metrics)
        elif canonical.is_gone(request):
            raise ConnectionResetError("client gone")
        else:
            line = stray.begin(request, self._house.metrics)
            response = stray.broken(line, exc or TimeoutError("a handler ran out of time"))
        response.force_close()
        return response

    def _expect_header(self) -> None:
        self._began = self._loop.time()
        self._deadline = self._loop.call_later(self._house.header_timeout, self._expire)

    def _header_came(self) -> None:
        self._header_bytes = 0
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _expire(self) -> None:
        self._deadline = None
        if self._header_bytes:
            self._cut_off("header_timeout")
        else:  # it never said a word: no request, no line
            self.abort()

    def _cut_off(self, reason: str, answer: bytes = b"") -> None:
        self._header_came()
        stray.no_request(self, reason, self._loop.time() - self._began, self._house.metrics)
        if answer and self._wire is not None:
            self._wire.write(answer)
            self.force_close()
        else:
            self.abort()

    def _take_body(self) -> None:
        """Keep the body of the newest request; when the parser fails in the middle of it, tell whoever reads it.

        aiohttp only queues an error behind the request, whose reader would wait until its deadline.
        """
        message, body = self._messages[-1]
        if isinstance(message, RawRequestMessage):
            self._body = body
        elif self._body is not None and not self._body.is_eof():
            self._messages.pop()
            self._last = True
            self._body.set_exception(web.RequestPayloadError("the body is broken"))
            self._body.feed_eof()
            self.close()
