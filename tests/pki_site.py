"""The certificate services on real sites, with and without TLS, as the tests reach them."""

import json
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

from provisioning.core import ca, certify, importing, pki
from provisioning.core.blocking import Blocker
from provisioning.metrics import Metrics
from provisioning.model.certificate import Authority, Profile
from provisioning.protocols.enos.mqtt import Enos
from provisioning.protocols.x509 import est
from provisioning.protocols.x509 import http as publication
from provisioning.sections import Enos as EnosSettings
from provisioning.sections import Http
from provisioning.store.database import Database
from provisioning.web.operation import METRICS, REQUEST_TIMEOUT
from provisioning.web.site import Site
from provisioning.web.stray import catch_strays
from provisioning.web.world import WORLD, Endpoints, PkiPolicy, World
from tests.certificates import KEY, parsed, run
from tests.openssl import write


@dataclass(frozen=True)
class Reply:
    status: int
    body: bytes
    headers: Any

    @property
    def text(self) -> str:
        return self.body.decode()

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Served:
    database: Database
    authority: Authority
    http: Site
    https: Site
    directory: Path
    session: aiohttp.ClientSession

    @property
    def base(self) -> str:
        return f"http://127.0.0.1:{self.http.port}"

    @property
    def secure(self) -> str:
        return f"https://localhost:{self.https.port}"

    @property
    def anchor(self) -> Path:
        return write(self.directory / "ca.pem", parsed(self.authority))

    def trusting(self, certificate: Path | None = None, key: Path | None = None) -> ssl.SSLContext:
        """A TLS client's side: it trusts our authority, and shows a certificate or none."""
        context = ssl.create_default_context(cafile=str(self.anchor))
        if certificate:
            context.load_cert_chain(certificate, key)
        return context

    async def call(self, method: str, url: str, **more: Any) -> Reply:
        if url.startswith("/"):
            url = self.base + url
        if url.startswith("https"):
            more.setdefault("ssl", self.trusting())
        async with self.session.request(method, url, **more) as response:
            return Reply(response.status, await response.read(), response.headers)


async def load(database: Database, *rows: dict[str, object]) -> None:
    readers = {"enos": Enos(EnosSettings()).read_row}
    summary = await importing.import_rows(database, [json.dumps(row) for row in rows], readers)
    assert not summary.failed, summary.first_failure


@asynccontextmanager
async def pki_site(
    database: Database, directory: Path, *, refusals: int = 4, always_200: bool = False, **policy: Any
) -> AsyncIterator[Served]:
    """`refusals`: of a device until it is blocked; `policy`: of `PkiPolicy`."""
    now = datetime.now(UTC).replace(microsecond=0)
    authority = await run(database, ca.ensure_default, KEY, now=now)
    sites: list[Site] = []
    world = World(
        database,
        Endpoints(),
        PkiPolicy(url=lambda: f"http://127.0.0.1:{sites[0].port}", **policy),
    )
    enos = Enos(EnosSettings(error_http_status="always200" if always_200 else "rest"))
    blocker = Blocker(refusals=refusals, window=60, duration=60, clock=time.monotonic)
    routes = [*publication.routes(), *est.routes([enos.read_user], blocker), *enos.routes()]
    tls = await _server_side(database, authority, directory)
    async with AsyncExitStack() as stack:
        for context in (None, tls):
            http = Http(port=0)
            app = web.Application(middlewares=[catch_strays])
            app[WORLD], app[METRICS], app[REQUEST_TIMEOUT] = world, Metrics(), http.request_timeout
            app.add_routes(routes)
            site = Site(app, host="127.0.0.1", port=0, settings=http, ssl_context=context)
            await site.start()
            stack.push_async_callback(site.stop)
            sites.append(site)
        session = await stack.enter_async_context(aiohttp.ClientSession(skip_auto_headers={"Content-Type"}))
        yield Served(database, authority, sites[0], sites[1], directory, session)


async def _server_side(database: Database, authority: Authority, directory: Path) -> ssl.SSLContext:
    """A certificate of the client is asked for, and not required."""
    own = await run(
        database, certify.issue_with_key, authority, pki.new_key(), pki.make_subject("localhost"),
        now=datetime.now(UTC), days=30, profile=Profile.SERVER, names=pki.read_names(["localhost", "127.0.0.1"]),
    )  # fmt: skip
    path = directory / "server.pem"
    path.write_text(own.key + certify.bundle(authority, own.certificate))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    context.verify_mode = ssl.CERT_OPTIONAL
    context.load_verify_locations(cadata=pki.write_pem(authority.certificate))
    return context
