"""Images of updates over HTTP: by signed links, whole or in ranges.

    GET, HEAD /updates/<checksum>/<file>?expires=…&signature=…

403: we never signed this. 410: the link has expired. 404: no update has this image any more. 503: the store is away, or
what it has is not the image: a device is never given something else under a checksum. Ranges: RFC 9110, section 14.
"""

from collections.abc import Iterable, Mapping
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from http import HTTPStatus
from types import MappingProxyType
from typing import Final

from aiohttp import hdrs, web
from aiohttp.abc import AbstractStreamWriter

from provisioning import log
from provisioning.core import links
from provisioning.images import DiskImages, ImageError, Images, RemoteImages
from provisioning.model.refusal import Reason, Refusal
from provisioning.store import updates
from provisioning.web.connection import ANSWER_TIMEOUT
from provisioning.web.operation import note, operation
from provisioning.web.world import WORLD

PROTOCOL: Final = "updates"
BINARY: Final = "application/octet-stream"

REFUSALS: Final[Mapping[Reason, tuple[int, str]]] = MappingProxyType({
    Reason.NOT_PROVEN: (403, "this link is not valid"),
    Reason.STALE: (410, "this link has expired: ask for the update again"),
    Reason.UNKNOWN: (404, "there is no such image any more"),
    Reason.UNAVAILABLE: (503, "not available at this moment: try again"),
})  # fmt: skip
"""All others are internal errors: nothing else is read from a request."""


def routes(images: DiskImages | RemoteImages, timeout: float) -> Iterable[web.RouteDef]:
    """The application must hold `WORLD`, `METRICS` and `REQUEST_TIMEOUT`. `timeout` (s) bounds one download."""

    async def serve(request: web.Request) -> web.StreamResponse:
        return await download(request, images, timeout)

    path = links.path_of(f"{{checksum:{links.CHECKSUM}}}", f"{{file:{links.FILE}}}")
    return (web.get(path, operation(PROTOCOL, "download", serve, refuse)),)


def refuse(refusal: Refusal) -> web.Response:
    status, words = REFUSALS.get(refusal.reason, (500, "internal error"))
    return web.Response(status=status, text=f"{words}\n", headers={hdrs.CACHE_CONTROL: "no-store"})


async def download(
    request: web.Request,
    images: DiskImages | RemoteImages,
    timeout: float,  # noqa: ASYNC109 - of the answer, which is written when this is done
) -> web.StreamResponse:
    world, query = request.app[WORLD], request.query
    checksum, file = request.match_info["checksum"], request.match_info["file"]
    links.check_link(
        world.database.sealer.derive(links.PURPOSE), checksum, file, expires=query.get("expires", ""),
        signature=query.get("signature", ""), now=datetime.now(UTC),
    )  # fmt: skip
    note(request, checksum=checksum, range=request.headers.get(hdrs.RANGE, ""))
    async with world.database.read() as tx:
        size = await updates.size_of(tx, checksum)
    if size is None:
        raise Refusal(Reason.UNKNOWN)
    await _verify(images, checksum, size)
    request[ANSWER_TIMEOUT] = timeout
    headers: dict[str, str] = {
        hdrs.CONTENT_TYPE: BINARY, hdrs.CACHE_CONTROL: "private, max-age=86400, immutable",
        hdrs.CONTENT_DISPOSITION: f'attachment; filename="{file}"', hdrs.X_CONTENT_TYPE_OPTIONS: "nosniff",
    }  # fmt: skip
    if isinstance(images, DiskImages):
        return web.FileResponse(images.path(checksum), headers=headers)
    return _RemoteResponse(images, checksum, size, headers)


async def _verify(images: Images, checksum: str, size: int) -> None:
    try:
        there = await images.size(checksum)
    except ImageError as error:
        raise Refusal(Reason.UNAVAILABLE, error=str(error)) from error
    if there != size:
        found = "it is missing" if there is None else f"it has {there} bytes and must have {size}"
        raise Refusal(Reason.UNAVAILABLE, error=f"the image is damaged: {found}; publish it again")


class _RemoteResponse(web.StreamResponse):
    """What `web.FileResponse` is for a file: it looks at the range, and sends the content while it is prepared."""

    def __init__(self, images: RemoteImages, checksum: str, size: int, headers: Mapping[str, str]) -> None:
        super().__init__(headers=headers)
        self._images = images
        self._checksum = checksum
        self._size = size
        self.headers[hdrs.ACCEPT_RANGES] = "bytes"
        self.etag = checksum

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        if self.prepared:
            return await super().prepare(request)
        if any(tag.value in {self._checksum, "*"} for tag in request.if_none_match or ()):
            self.set_status(HTTPStatus.NOT_MODIFIED)
            return await self._prepare_empty(request)
        span = self._span(request)
        if span is None:
            self.headers[hdrs.CONTENT_RANGE] = f"bytes */{self._size}"
            self.set_status(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE)
            return await self._prepare_empty(request)
        self.content_length = len(span)
        if request.method == hdrs.METH_HEAD or not span:
            return await super().prepare(request)
        return await self._send(request, span)

    def _span(self, request: web.BaseRequest) -> range | None:
        """Which bytes to send; None: there are none where the client asks. Of an old image nothing can be continued."""
        condition = request.headers.get(hdrs.IF_RANGE, "")
        if condition not in {"", f'"{self._checksum}"'}:
            return range(self._size)
        try:
            asked = request.http_range
        except ValueError:
            return None
        if asked.start is None and asked.stop is None:
            return range(self._size)
        span = range(self._size)[asked.start : asked.stop]
        if not span:
            return None
        self.set_status(HTTPStatus.PARTIAL_CONTENT)
        self.headers[hdrs.CONTENT_RANGE] = f"bytes {span[0]}-{span[-1]}/{self._size}"
        return span

    async def _prepare_empty(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        self.content_length = 0
        return await super().prepare(request)

    async def _send(self, request: web.BaseRequest, span: range) -> AbstractStreamWriter | None:
        try:
            async with AsyncExitStack() as stack:
                chunks = await stack.enter_async_context(self._images.read(self._checksum, span[0], span[-1]))
                writer = await super().prepare(request)
                async for chunk in chunks:
                    await self.write(chunk)
                await self.write_eof()
                return writer
        except ImageError as error:
            log.get().warning("updates.download", outcome="failed", checksum=self._checksum, error=str(error))
            if not self.prepared:
                self.headers.clear()
                self.set_status(HTTPStatus.SERVICE_UNAVAILABLE)
                return await self._prepare_empty(request)
            # Half is sent: the connection is closed, and the client sees that the rest is missing.
            raise ConnectionResetError("the image ended too early") from error
