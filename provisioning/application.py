"""The HTTP application: the routes of all protocols, and what they share."""

from collections.abc import Callable

from aiohttp import web

from provisioning.core.blocking import Blocker
from provisioning.core.updates import StopRule
from provisioning.credentials import CredentialsProvider
from provisioning.doors import reachable
from provisioning.images import DiskImages, RemoteImages
from provisioning.metrics import Metrics
from provisioning.protocols import VendorProtocol, shared_routes
from provisioning.protocols.x509 import est
from provisioning.protocols.x509 import http as published
from provisioning.settings import Settings
from provisioning.store.database import Database
from provisioning.web import downloads, health
from provisioning.web.operation import METRICS, REQUEST_TIMEOUT
from provisioning.web.stray import catch_strays
from provisioning.web.world import WORLD, Endpoints, PkiPolicy, World


def base_url(settings: Settings, endpoints: Endpoints) -> str:
    """Where devices find what authorities publish."""
    return (settings.pki.url or endpoints.hurl(reachable(settings.http.host) or "127.0.0.1")).rstrip("/")


def make_world(
    settings: Settings,
    database: Database,
    endpoints: Endpoints,
    provider: CredentialsProvider,
) -> World:
    """What every operation may need, by the settings."""
    token = settings.pki.access_token
    policy = PkiPolicy(
        url=lambda: base_url(settings, endpoints), leaf_days=settings.pki.leaf_days,
        max_leaf_days=settings.pki.max_leaf_days, crl_days=settings.pki.crl_days,
        access_token=token.get_secret_value() if token else None,
    )  # fmt: skip
    return World(
        database, endpoints, policy, credentials=provider,
        stop_rule=StopRule(after=settings.updates.stop_after, share=settings.updates.stop_share),
    )  # fmt: skip


def make_applications(
    settings: Settings,
    world: World,
    vendors: tuple[VendorProtocol, ...],
    metrics: Metrics,
    *,
    blocker: Blocker,
    images: DiskImages | RemoteImages,
) -> Callable[[], web.Application]:
    """What makes the application, once for each site."""
    routes = [  # once for both: they keep what they have made, a CRL for instance
        *health.routes(),
        *published.routes(),
        *downloads.routes(images, settings.images.download_timeout),
        *est.routes([vendor.read_user for vendor in vendors], blocker),
        *(route for vendor in vendors for route in vendor.routes()),
        *shared_routes(vendors),
    ]

    def make() -> web.Application:
        app = web.Application(middlewares=[catch_strays])
        app[WORLD] = world
        app[METRICS] = metrics
        app[REQUEST_TIMEOUT] = settings.http.request_timeout
        app[health.READINESS] = {"database": world.database.answers, "listeners": world.endpoints.are_known}
        app.add_routes(routes)
        return app

    return make
