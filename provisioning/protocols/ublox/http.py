"""Serves the table of routes: each operation at `/v1{path}` and at the bare path. Contract: section 1."""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Hashable, Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from aiohttp import hdrs, web

from provisioning.core import accounts
from provisioning.core.access import Access, Claims, key_set
from provisioning.core.rates import Rates
from provisioning.model.account import Account
from provisioning.model.refusal import Reason, Refusal
from provisioning.protocols.ublox import openapi, refusals, wire
from provisioning.protocols.ublox.auth import Authenticate
from provisioning.protocols.ublox.auth import Refresh as RefreshForm
from provisioning.protocols.ublox.call import NOBODY, AnyOperation, Call, Guard
from provisioning.protocols.ublox.reading import Form
from provisioning.protocols.ublox.routes import ROUTES
from provisioning.sections import Ublox as Settings
from provisioning.store.database import Tx
from provisioning.web.body import is_json, read_bytes
from provisioning.web.operation import note, operation
from provisioning.web.parsing import parse_json
from provisioning.web.world import WORLD, World

LARGEST_BODY: Final = 1_048_576
LARGE_BODY: Final = 65_536
"""Bytes that take a while to read: not in the loop."""
LONGEST_KEY: Final = 64
"""Characters of an API key: no longer one is remembered."""
CSV: Final = "application/octet-stream"
KEY_SET: Final = "/.well-known/jwks.json"
DOCUMENT: Final = "/ublox/openapi.json"
COMPACT: Final = partial(json.dumps, separators=(",", ":"))


@dataclass(slots=True)
class Operations:
    """What applications call."""

    settings: Settings
    access: Access = field(init=False)
    rates: Rates = field(init=False)

    def __post_init__(self) -> None:
        self.access = Access(self.settings.issuer)
        self.rates = Rates(self.settings.rate, clock=time.monotonic)

    def routes(self) -> Iterable[web.RouteDef]:
        """The application must hold `WORLD`, `METRICS` and `REQUEST_TIMEOUT`."""
        found = [web.get(KEY_SET, served("jwks", self.key_set)), web.get(DOCUMENT, served("openapi", describe))]
        for row in ROUTES:
            handler = served(row.name, partial(self.serve, row), marked=row.marked)
            for path in (f"/v1{row.path}", row.path):
                found.append(web.post(path, handler))
                if row.get:
                    found.append(web.get(path, handler))
        # Paths below /v1 are nobody else's, nor are those of operations: whatever else is asked there, and with other
        # methods, is answered in the vendor's words.
        unknown = served("unknown", _unknown)
        found += [web.route("*", path, unknown) for path in (*(row.path for row in ROUTES), "/v1/{rest:.*}")]
        return found

    async def key_set(self, request: web.Request) -> web.Response:
        """RFC 7517: the keys that verify AuthTokens."""
        world = request.app[WORLD]
        return reply(key_set(await self.access.keys(world.database, world.clock())))

    async def serve(self, row: AnyOperation, request: web.Request) -> web.Response:
        """The story of every request: who asks, how often, for what; then the operation, in one transaction."""
        world = request.app[WORLD]
        now = world.clock()
        token = None if row.guard is Guard.OPEN else read_authorization(request.headers.get(hdrs.AUTHORIZATION, ""))
        claims = None
        if token is None:
            await self.access.keys(world.database, now)  # not later, when the operation has a connection already
        else:
            claims = await self.access.read(world.database, token, now=now)
            note(request, account=claims.key)
            self._take_turn((claims.account_id, claims.generation))
        try:
            form = await read_form(row, request)
        except Refusal:
            if claims is not None:  # who asks comes before what is asked
                async with world.database.read() as tx:
                    await self._admit(tx, row, claims)
            raise
        if isinstance(form, Authenticate | RefreshForm):
            self._take_turn(form.key[: LONGEST_KEY + 1])
        async with world.database.begin() as tx:
            account = await self._admit(tx, row, claims)
            result = await row.verb(self._call(tx, account, world), form)
        if isinstance(form, Authenticate | RefreshForm):  # it is a key now; what is none may be anything, a secret too
            note(request, account=form.key)
        return reply(row.writer(result))

    async def _admit(self, tx: Tx, row: AnyOperation, claims: Claims | None) -> Account:
        """Whose request it is. Raises: Refusal NOT_PROVEN; UNSUPPORTED, without the subscription that it takes."""
        if claims is None:
            return NOBODY
        account = await accounts.current(tx, wire.PROTOCOL, claims)
        if row.guard is Guard.SUBSCRIBED and not account.certificates:
            raise Refusal(Reason.UNSUPPORTED, account=claims.key)
        return account

    def _call(self, tx: Tx, account: Account, world: World) -> Call:
        return Call(
            tx=tx, account=account, now=world.clock(), database=world.database, access=self.access,
            settings=self.settings,
        )  # fmt: skip

    def _take_turn(self, who: Hashable) -> None:
        """Raises: Refusal RATE_LIMITED.

        Whoever has a token and whoever states a key are counted apart: who only knows the key of an account, or has a
        token of its secret before, takes no turns from its applications.
        """
        if not self.rates.take(who):
            raise Refusal(Reason.RATE_LIMITED)


async def describe(request: web.Request) -> web.Response:
    """The OpenAPI document, or 304 for whoever has it (RFC 9110, 13.1.2)."""
    found = await asyncio.to_thread(openapi.published, ROUTES)
    known = {each.value for each in request.if_none_match or ()}
    if known & {found.etag, "*"}:
        response = web.Response(status=304)
    else:
        response = web.Response(body=found.body, content_type="application/json")
    response.etag = found.etag
    return response


async def _unknown(_request: web.Request) -> web.Response:
    raise Refusal(Reason.UNKNOWN)


def served(
    name: str, handler: Callable[[web.Request], Awaitable[web.Response]], *, marked: bool = False
) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    """The handler as an operation of this protocol: refusals become a status and a sentence."""

    def refuse(refusal: Refusal) -> web.Response:
        row = refusals.write_error(refusal)
        return reply(refusals.write_body(row.status, row.message, marked=marked), row.status)

    return operation(wire.PROTOCOL, name, handler, refuse)


def reply(body: object, status: int = 200) -> web.Response:
    return web.json_response(body, status=status, dumps=COMPACT)


def read_authorization(header: str) -> str:
    """The AuthToken: behind `Bearer`, or bare. Raises: Refusal NOT_PROVEN."""
    scheme, _, rest = header.strip().partition(" ")
    token = rest.strip() if scheme.lower() == "bearer" else header.strip()
    if not token.isascii() or token.count(".") != 2:  # noqa: PLR2004 - the parts of a JWS (RFC 7515, 3.1)
        raise Refusal(Reason.NOT_PROVEN)
    return token


async def read_form(row: AnyOperation, request: web.Request) -> Form:
    """The body, as the operation's reader has it.

    An empty body is an empty object: some operations need none.

    Raises:
        Refusal: UNSUPPORTED_MEDIA_TYPE, TOO_LARGE, MALFORMED, MISSING.
    """
    kind = request.headers.get(hdrs.CONTENT_TYPE, "")
    is_csv = row.csv is not None and kind.partition(";")[0].strip().lower() == CSV
    if not row.get and not is_csv and not is_json(kind):
        raise Refusal(Reason.UNSUPPORTED_MEDIA_TYPE, field=hdrs.CONTENT_TYPE)
    data = await read_bytes(request, LARGEST_BODY)
    if is_csv:
        assert row.csv is not None
        return await asyncio.to_thread(row.csv, data) if len(data) > LARGE_BODY else row.csv(data)
    if row.get:  # has no body, whatever stands there
        return row.reader.read({})  # type: ignore[no-any-return]
    if len(data) > LARGE_BODY:
        return await asyncio.to_thread(lambda: row.reader.read(parse_json(data)))
    return row.reader.read(parse_json(data) if data.strip() else {})  # type: ignore[no-any-return]
