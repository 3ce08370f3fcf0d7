"""The HTTP operations of devices. Each handler is the story of one request, in the order in which it happens.

Every path is served as it is and with `/tok` before or behind the base: agents with a token insert it.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from hmac import compare_digest
from typing import Final

from aiohttp import hdrs, web

from provisioning.core import ca, certify, claims, links, tokens, updates
from provisioning.core.pki import KeyType
from provisioning.model.claim import Claim, CloudType
from provisioning.model.refusal import Reason, Refusal
from provisioning.model.registry import Device, Product
from provisioning.protocols.ioto import refusals, wire
from provisioning.protocols.x509.wire import urls
from provisioning.sections import Ioto as Settings
from provisioning.store import claims as store
from provisioning.store import devices, products
from provisioning.store.database import Tx
from provisioning.web.body import read_bytes
from provisioning.web.operation import Handler, note, operation
from provisioning.web.parsing import parse_json
from provisioning.web.world import WORLD, Endpoints, asked_host

LARGEST_BODY: Final = 16_384
ROOT_REGISTER: Final = "/device/register"
"""Shared with another protocol: who dispatches there calls `Operations.register`."""
BUILDER: Final = (
    "/api/device/register", "/tok/api/device/register", "/api/tok/device/register", f"/tok{ROOT_REGISTER}",
)  # fmt: skip
CHECKIN: Final = ("/provision/checkin", "/provision/update")
REPORT: Final = ("/provision/updateReport",)
GET_CERTS: Final = ("/provision/getCerts", "/device/provision")
GET_CREDS: Final = ("/provision/getCreds", "/device/getCreds")

COMPACT: Final = partial(json.dumps, separators=(",", ":"))

WriteError = Callable[[Refusal], refusals.Row]


async def read_body(request: web.Request) -> object:
    """The JSON value in the body, whatever media type stands above it; none is an empty object.

    Raises:
        Refusal: as `read_bytes` and `parse_json`.
    """
    data = await read_bytes(request, LARGEST_BODY)
    return parse_json(data) if data.strip() else {}


def reply(fields: Mapping[str, object]) -> web.Response:
    """Compact: agents count nodes and have little room."""
    return web.json_response(fields, dumps=COMPACT)


def served(name: str, handler: Handler, write: WriteError = refusals.write_error) -> Handler:
    """The handler as an operation of this protocol: refusals become a status and plain text."""

    def refuse(refusal: Refusal) -> web.Response:
        row = write(refusal)
        return web.Response(status=row.status, text=row.text)

    return operation(wire.PROTOCOL, name, handler, refuse)


@dataclass(frozen=True, slots=True)
class Operations:
    """What devices call. `names`: DNS names by which our own certificate knows us."""

    settings: Settings
    names: Sequence[str] = field(default=())

    def routes(self) -> Iterable[web.RouteDef]:
        """The application must hold `WORLD`, `METRICS` and `REQUEST_TIMEOUT`."""
        table: tuple[tuple[Sequence[str], Handler], ...] = (
            (BUILDER, self.register()),
            (_both(CHECKIN), served("checkin", self._checkin, refusals.write_checkin_error)),
            (_both(REPORT), served("update_report", report)),
            (_both(GET_CERTS), served("get_certs", self._get_certs)),
            (_both(GET_CREDS), served("get_creds", get_creds, refusals.write_credentials_error)),
        )
        return [web.post(path, handler) for paths, handler in table for path in paths]

    def register(self) -> Handler:
        """The operation `register`, for whoever dispatches a path that protocols share."""
        return served("register", self._register, refusals.write_register_error)

    async def _register(self, request: web.Request) -> web.Response:
        """A device says that it is there, again and again, until it is claimed and gets its token."""
        token, body = authorization(request), await read_body(request)
        now = datetime.now(UTC)
        async with request.app[WORLD].database.begin() as tx:
            product = await prove_product(tx, token)
            said = wire.read_register(body, token)
            note(request, product=product.key, device=said.device)
            api = self.api(request)
            device, claim = await claims.register(
                tx, product, said.device, said.body, name=said.name, test=said.test, claim=self._stated(said), now=now
            )
            ask = self.settings.reregister == "ask"
            granted = await claims.hand_token(tx, device, ask=ask, now=now) if claim else None
        note(request, state="claimed" if granted else "waiting" if claim else "registered")
        if granted is None:
            return reply(wire.write_registered())
        claim, new_token = granted
        return reply(wire.write_claimed(device.key, claim, api=api, token=new_token))

    def _stated(self, said: wire.Registration) -> Claim | None:
        if not (self.settings.auto_claim and said.account):
            return None
        return claim_of(self.settings, said.account, said.cloud)

    async def _checkin(self, request: web.Request) -> web.Response:
        """A device asks for an update. Wrong words here cost a fleet its certificates: see `refusals.TOKEN_ENDS`."""
        token, body = authorization(request), await read_body(request)
        world, now = request.app[WORLD], datetime.now(UTC)
        async with world.database.begin() as tx:
            device, _ = await recognise(tx, request, token, now)
            said = wire.read_checkin(body, device.key, device.product)
            told = (await store.told(tx, [device.id])).get(device.id)
            test = said.test if said.test is not None else told is not None and told.test
            before = told.body if told else {}
            await store.note_checked(tx, device.id, said.fields, test=test, version=said.version, now=now)
            offer = await updates.offer(
                tx, protocol=wire.PROTOCOL, product=device.product, device=device.key,
                fields={**before, **said.fields}, test=test, version=said.version, now=now,
            )  # fmt: skip
        if offer is None:
            return reply(wire.write_offer(None, ""))
        note(request, update=offer.update_id, version=offer.version)
        key = world.database.sealer.derive(links.PURPOSE)
        return reply(wire.write_offer(offer, links.sign_link(self.api(request), key, offer, now)))

    async def _get_certs(self, request: web.Request) -> web.Response:
        """A claimed device gets a certificate, with a key that is kept nowhere else."""
        token, body = authorization(request), await read_body(request)
        world, now = request.app[WORLD], datetime.now(UTC).replace(microsecond=0)
        async with world.database.begin() as tx:
            device = await tokens.recognise(tx, token, now=now)
            note(request, product=device.product, device=device.key)
            wire.read_get_certs(body, device.key)
            if await claims.claim_of(tx, device) is None:
                raise Refusal(Reason.NOT_ALLOCATED)
        if device.disabled:
            note(request, state="blocked")
            return reply(wire.write_blocked(self.settings.blocked_delay))
        key = await ca.make_key(KeyType(self.settings.certificate_key))
        days = min(self.settings.certificate_days, world.pki.max_leaf_days)
        async with world.database.begin() as tx:
            device = await tokens.recognise(tx, token, now=now)  # it may have been released while its key was made
            authority = await ca.default(tx)
            at = urls(world.pki.base, authority)
            claim, made = await claims.certificate(tx, authority, device, key, now=now, days=days, urls=at)
            await store.note_accessed(tx, device.id, now)
        note(request, certificate=made.certificate.serial)
        host = mqtt_host(self.settings, world.endpoints, asked_host(request), self.names)
        certified = wire.Certified(
            certificate=certify.bundle(authority, made.certificate), key=made.key, host=host,
            port=self.settings.mqtt_port or world.endpoints.mqtts_port,
        )  # fmt: skip
        return reply(wire.write_certified(device.key, claim, certified))

    def api(self, request: web.Request) -> str:
        """What a device is told as the base of its calls: the setting, or the address by which it has asked.

        Raises:
            Refusal: MALFORMED, when that is longer than agents have room for.
        """
        if self.settings.api is not None:
            return self.settings.api
        host, endpoints = asked_host(request), request.app[WORLD].endpoints
        base = f"https://{host}:{endpoints.https_port}" if request.secure else endpoints.hurl(host).rstrip("/")
        if len(base) > wire.LONGEST_API:
            raise wire.invalid("Invalid host", hdrs.HOST)
        return base


async def report(request: web.Request) -> web.Response:
    """A device says how its update went."""
    token, body = authorization(request), await read_body(request)
    world, now = request.app[WORLD], datetime.now(UTC)
    async with world.database.begin() as tx:
        device, _ = await recognise(tx, request, token, now)
        said = wire.read_report(body, device.key)
        note(request, update=said.update, success=said.success)
        await updates.report(
            tx, protocol=wire.PROTOCOL, product=device.product, device=device.key, update_id=said.update,
            success=said.success, now=now, rule=world.stop_rule,
        )  # fmt: skip
    return reply({})


async def get_creds(request: web.Request) -> web.Response:
    """A device gets credentials for its owner's cloud. What stands in the body does not matter."""
    token = authorization(request)
    await read_bytes(request, LARGEST_BODY)
    world, now = request.app[WORLD], datetime.now(UTC)
    async with world.database.begin() as tx:
        device, _ = await recognise(tx, request, token, now)
        await store.note_accessed(tx, device.id, now)
    if world.credentials is None:
        raise Refusal(Reason.UNSUPPORTED)
    try:
        found = await world.credentials.credentials(device.product, device.key)
    except Refusal as refusal:
        if refusal.reason is Reason.UNAVAILABLE:  # AWS is, not the database
            raise Refusal(Reason.UNAVAILABLE, aws=refusal.detail.get("error", "AWS is not available")) from refusal
        raise
    return reply(
        wire.write_credentials(
            access_key_id=found.access_key_id, secret_access_key=found.secret_access_key,
            session_token=found.session_token, region=found.region, expires=found.expires,
        )
    )  # fmt: skip


# --- what the stories have in common ---------------------------------------------------------------------------------


def authorization(request: web.Request) -> str:
    """Raises: Refusal NOT_PROVEN."""
    return wire.read_authorization(request.headers.get(hdrs.AUTHORIZATION, ""))


async def prove_product(tx: Tx, token: str) -> Product:
    """The product whose token this is. Raises: Refusal NOT_PROVEN."""
    product = await products.find(tx, wire.PROTOCOL, wire.key_of_bearer(token))
    if product is None or not compare_digest(product.secret.encode(), token.encode()):
        raise Refusal(Reason.NOT_PROVEN)
    return product


async def recognise(tx: Tx, request: web.Request, token: str, now: datetime) -> tuple[Device, Claim]:
    """The claimed device whose token this is.

    Raises:
        Refusal: NOT_PROVEN, as `tokens.recognise`; NOT_ALLOCATED, when it is not claimed; DISABLED.
    """
    device = await tokens.recognise(tx, token, now=now)
    note(request, product=device.product, device=device.key)
    await devices.keep(tx, device.id)  # before anything that belongs to it: the order of locks is the same for all
    claim = await claims.claim_of(tx, device)
    if claim is None:
        raise Refusal(Reason.NOT_ALLOCATED)
    if device.disabled:
        raise Refusal(Reason.DISABLED)
    return device, claim


def claim_of(settings: Settings, account: str, cloud: str) -> Claim:
    """A claim that states account and cloud, or less; the settings say the rest."""
    return Claim(
        account=account or settings.account, cloud_type=CloudType(settings.cloud_type),
        cloud_name=cloud or settings.cloud_name, cloud_region=settings.cloud_region,
    )  # fmt: skip


def mqtt_host(settings: Settings, endpoints: Endpoints, asked: str, names: Sequence[str]) -> str:
    """The first of what may be meant that agents connect to."""
    candidates = (settings.mqtt_host or "", endpoints.mqtts_host, asked, *names)
    return next((each for each in candidates if each and wire.is_dns_name(each)), "localhost")


def _both(paths: Sequence[str]) -> list[str]:
    return [f"{prefix}{path}" for path in paths for prefix in ("", "/tok")]
