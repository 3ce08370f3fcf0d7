"""provisioning/web/downloads.py, with both stores."""

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import pytest
from aiohttp import web

from provisioning import settings
from provisioning.core import links, updates
from provisioning.images import DiskImages, RemoteImages, open_images
from provisioning.images.s3 import S3Images
from provisioning.metrics import Metrics
from provisioning.model.update import Offer, Update
from provisioning.sections import Http
from provisioning.store.database import Database
from provisioning.web import downloads
from provisioning.web.operation import METRICS, REQUEST_TIMEOUT
from provisioning.web.site import Site
from provisioning.web.stray import catch_strays
from provisioning.web.world import WORLD, Endpoints, World
from tests.aws import Account
from tests.conftest import until
from tests.provisioning.store.registry import PROTOCOL, add_product

pytestmark = pytest.mark.server

CONTENT = bytes(range(256)) * 1_000
CHECKSUM = hashlib.sha256(CONTENT).hexdigest()


def new_update(checksum: str, size: int) -> Update:
    return Update(protocol=PROTOCOL, product="pk", version="1.4.0", checksum=checksum, size=size, file="fw.bin")


@dataclass(slots=True)
class Depot:
    """A site with one image, and somebody who downloads."""

    site: Site
    images: DiskImages | RemoteImages
    database: Database
    session: aiohttp.ClientSession

    def link(self, now: datetime | None = None, *, checksum: str = CHECKSUM, port: int = 0) -> str:
        offer = Offer(checksum=checksum, version="1.4.0", update_id="upd1", file="fw.bin", size=len(CONTENT))
        key = self.database.sealer.derive(links.PURPOSE)
        return links.sign_link(f"http://127.0.0.1:{port or self.site.port}", key, offer, now or datetime.now(UTC))

    async def get(self, link: str = "", *, method: str = "GET", **headers: str) -> tuple[aiohttp.ClientResponse, bytes]:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        async with self.session.request(method, link or self.link(), headers=named) as response:
            return response, await response.read()

    async def damage(self, content: bytes | None) -> None:
        if isinstance(self.images, DiskImages):
            path = self.images.path(CHECKSUM)
            await asyncio.to_thread(path.unlink if content is None else lambda: path.write_bytes(content))
            return
        assert isinstance(self.images, S3Images)
        s3, at = await self.images._aws.client("s3"), self.images._at(CHECKSUM)
        await (s3.delete_object(**at) if content is None else s3.put_object(**at, Body=content))


@asynccontextmanager
async def depots(database: Database, tmp_path: Path, **stated: Any) -> AsyncIterator[Depot]:
    await asyncio.to_thread((tmp_path / "fw.bin").write_bytes, CONTENT)
    async with open_images(settings.load(data_dir=tmp_path, **stated)) as images:
        image = await images.put(tmp_path / "fw.bin", lambda _count: None)
        async with database.begin() as tx:
            await add_product(tx)
            await updates.publish(tx, new_update(image.checksum, image.size))
        async with serving(database, images) as site, aiohttp.ClientSession() as session:
            yield Depot(site, images, database, session)


@pytest.fixture(params=["disk", "s3"])
async def depot(
    request: pytest.FixtureRequest, aws: Account, database: Database, tmp_path: Path
) -> AsyncIterator[Depot]:
    stated: dict[str, Any] = {}
    if request.param == "s3":
        await asyncio.to_thread(aws.make_bucket, "fleet")
        stated = {"aws": aws.settings, "images": {"store": "s3", "bucket": "fleet"}}
    async with depots(database, tmp_path, **stated) as opened:
        yield opened


@asynccontextmanager
async def serving(
    database: Database, images: DiskImages | RemoteImages, seconds: float = 60, *, request_timeout: float = 30
) -> AsyncIterator[Site]:
    app = web.Application(middlewares=[catch_strays])
    app[WORLD] = World(database, Endpoints())
    app[METRICS] = Metrics()
    app[REQUEST_TIMEOUT] = 30
    app.add_routes(downloads.routes(images, seconds))
    site = Site(app, host="127.0.0.1", port=0, settings=Http(port=0, request_timeout=request_timeout))
    await site.start()
    try:
        yield site
    finally:
        await site.stop()


async def test_the_whole_image(depot: Depot, lines: Any) -> None:
    response, body = await depot.get()
    assert response.status == 200
    assert hashlib.sha256(body).hexdigest() == CHECKSUM
    assert response.headers["Content-Length"] == str(len(CONTENT))
    assert response.headers["Content-Type"] == "application/octet-stream"
    assert response.headers["Accept-Ranges"] == "bytes"
    assert response.headers["Content-Disposition"] == 'attachment; filename="fw.bin"'
    (line,) = lines
    assert (line["event"], line["outcome"], line["checksum"]) == ("http.download", "accepted", CHECKSUM)
    assert "signature" not in str(line)


async def test_ranges(depot: Depot) -> None:
    for asked, first, last in (
        ("bytes=0-0", 0, 0),
        ("bytes=100-199", 100, 199),
        ("bytes=255000-", 255_000, 255_999),
        ("bytes=-10", 255_990, 255_999),
        ("bytes=255999-300000", 255_999, 255_999),
    ):
        for method in ("GET", "HEAD"):
            response, body = await depot.get(method=method, Range=asked)
            assert response.status == 206, asked
            assert response.headers["Content-Range"] == f"bytes {first}-{last}/{len(CONTENT)}"
            assert response.headers["Content-Length"] == str(last - first + 1)
            assert body == (CONTENT[first : last + 1] if method == "GET" else b"")


async def test_ranges_that_there_are_not(depot: Depot) -> None:
    for asked in ("bytes=256000-", "bytes=300000-300001", "bytes=5-4", "lines=1-2", "bytes=x-y"):
        response, body = await depot.get(Range=asked)
        assert response.status == 416, asked
        assert response.headers["Content-Range"] == f"bytes */{len(CONTENT)}"
        assert len(body) < 100


async def test_head_says_how_long_it_is(depot: Depot) -> None:
    response, body = await depot.get(method="HEAD")
    assert (response.status, body) == (200, b"")
    assert response.headers["Content-Length"] == str(len(CONTENT))


async def test_a_download_is_continued_and_never_with_something_else(depot: Depot) -> None:
    response, _ = await depot.get(method="HEAD")
    tag = response.headers["ETag"]
    response, body = await depot.get(Range="bytes=255990-", If_None_Match='"x"')
    assert (response.status, body) == (206, CONTENT[255_990:])
    response, body = await depot.get(If_None_Match=tag)
    assert (response.status, body) == (304, b"")


async def test_many_at_once_over_one_connection_each(depot: Depot) -> None:
    found = await asyncio.gather(*(depot.get(Range=f"bytes={at * 1_000}-{at * 1_000 + 999}") for at in range(20)))
    assert [body for _, body in found] == [CONTENT[at * 1_000 : at * 1_000 + 1_000] for at in range(20)]


async def test_links_that_are_not_good(depot: Depot) -> None:
    old = datetime.now(UTC) - timedelta(hours=24, seconds=1)
    good = depot.link()
    for link, status in (
        (depot.link(old), 410),
        (good.replace("fw.bin", "fw2.bin"), 403),
        (good.replace(CHECKSUM, "0" * 64), 403),
        (good.replace("signature=", "signature=x"), 403),
        (good.replace("&signature=", "&s="), 403),
        (good.replace("expires=", "expires=9"), 403),
        (good.replace("?", "?expires=1&"), 403),
        (good.partition("?")[0], 403),
        (good.replace(CHECKSUM, f"../{CHECKSUM}"), 404),
        (good.replace(CHECKSUM, CHECKSUM.upper()), 404),
        (good.replace(CHECKSUM, "%2e%2e%2f" * 3), 404),
        (good.replace("fw.bin", "..%2f..%2fmaster.key"), 404),
        (good.replace("fw.bin", ""), 404),
    ):
        response, body = await depot.get(link)
        assert response.status == status, link
        assert len(body) < 200
    response, _ = await depot.get(method="POST")
    assert response.status == 405


async def test_an_image_that_no_update_has_is_gone(depot: Depot) -> None:
    async with depot.database.begin() as tx:
        await tx.db.execute("DELETE FROM software_update")
    response, body = await depot.get()
    assert (response.status, body) == (404, b"there is no such image any more\n")


async def test_what_is_not_the_image_is_not_given(depot: Depot, lines: Any) -> None:
    for content in (CONTENT[:-1], CONTENT + b"x", b"", None):
        await depot.damage(content)
        for method in ("GET", "HEAD"):
            response, body = await depot.get(method=method)
            assert response.status == 503
            assert len(body) < 100
    assert {line["outcome"] for line in lines} == {"failed"}
    assert all("the image is damaged: it " in line["error"] for line in lines)


@pytest.mark.parametrize(("seconds", "whole"), [(30.0, True), (0.2, False)])
async def test_a_slow_download_has_its_own_deadline(depot: Depot, tmp_path: Path, seconds: float, whole: bool) -> None:
    content = bytes(16_777_216)  # more than the sockets hold: writing it takes as long as reading
    checksum = await store(depot, content, tmp_path)
    async with serving(depot.database, depot.images, seconds, request_timeout=0.2) as site:
        reader, writer = await asyncio.open_connection("127.0.0.1", site.port, limit=2**16)
        path = depot.link(checksum=checksum, port=site.port).partition(str(site.port))[2]
        writer.write(f"GET {path} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n".encode())
        assert b" 200 OK" in await reader.readuntil(b"\r\n\r\n")
        began = time.monotonic()
        if whole:
            await until(lambda: time.monotonic() - began > 0.4, "what a small answer has")
        else:
            await until(lambda: site.connections == 0, "the end of the connection")
        got = 0
        while chunk := await _read(reader):
            got += len(chunk)
        writer.transport.abort()
    assert (got == len(content)) == whole


class Proxy:
    """Stands between us and S3, and cuts answers to GET off after so many bytes."""

    def __init__(self, url: str) -> None:
        self.cut_after: int | None = None
        self._target = urlsplit(url)
        self._tasks: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[str]:
        """Its URL."""
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.sleep(0)  # sockets are closed by the loop

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._tasks.add(asyncio.create_task(self._serve(reader, writer)))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        target, target_writer = await asyncio.open_connection(self._target.hostname, self._target.port)
        gets, left = False, 0

        async def ask() -> None:
            nonlocal gets, left
            while chunk := await reader.read(65_536):
                gets, left = chunk.startswith(b"GET "), self.cut_after or 0
                target_writer.write(chunk)

        asking = asyncio.create_task(ask())
        try:
            while chunk := await target.read(65_536):
                if gets and self.cut_after is not None:
                    chunk, left = chunk[:left], left - len(chunk)
                writer.write(chunk)
                await writer.drain()
                if left < 0:
                    break
        finally:
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)
            writer.close()
            target_writer.transport.abort()


@pytest.mark.parametrize("cut_after", [0, 100_000])
async def test_an_s3_that_goes_away_in_the_middle(
    database: Database, aws: Account, tmp_path: Path, lines: Any, cut_after: int
) -> None:
    await asyncio.to_thread(aws.make_bucket, "fleet")
    proxy = Proxy(aws.url)
    async with proxy.serving() as url:
        stated = {"aws": aws.settings | {"endpoint": url}, "images": {"store": "s3", "bucket": "fleet"}}
        async with depots(database, tmp_path, **stated) as depot:
            proxy.cut_after = cut_after
            if cut_after:
                with pytest.raises(aiohttp.ClientPayloadError):
                    await depot.get()
            else:
                response, body = await depot.get()
                assert (response.status, body) == (503, b"")
            proxy.cut_after = None
            _, body = await depot.get()
            assert body == CONTENT
    (warning,) = [line for line in lines if line["log_level"] == "warning"]
    assert warning["event"] == "updates.download"
    assert warning["error"].startswith("S3 cannot be used: ")


async def _read(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.read(65_536)
    except ConnectionError:
        return b""


async def store(depot: Depot, content: bytes, directory: Path) -> str:
    """An image more; returns its checksum."""
    await asyncio.to_thread((directory / "more").write_bytes, content)
    image = await depot.images.put(directory / "more", lambda _count: None)
    async with depot.database.begin() as tx:
        await updates.publish(tx, new_update(image.checksum, image.size))
    return image.checksum
