"""The operations of an account's administrators, who show the user token of the settings: claim, release, get, find."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from hmac import compare_digest
from typing import Final

from aiohttp import web

from provisioning.core import claims
from provisioning.model.refusal import Reason, Refusal
from provisioning.model.registry import Device
from provisioning.protocols.ioto import wire
from provisioning.protocols.ioto.http import authorization, claim_of, read_body, reply, served
from provisioning.sections import Ioto as Settings
from provisioning.store import claims as store
from provisioning.store.claims import Record
from provisioning.store.database import Tx
from provisioning.web.operation import note
from provisioning.web.world import WORLD

PREFIXES: Final = ("", "/tok", "/api", "/tok/api", "/api/tok")


@dataclass(frozen=True, slots=True)
class Operations:
    """What administrators call."""

    settings: Settings

    def routes(self) -> Iterable[web.RouteDef]:
        """The application must hold `WORLD`, `METRICS` and `REQUEST_TIMEOUT`."""
        table = {"claim": self._claim, "release": self._release, "get": self._get, "find": self._find}
        return [
            web.post(f"{prefix}/device/{verb}", served(f"device_{verb}", handler))
            for verb, handler in table.items()
            for prefix in PREFIXES
        ]

    def _check(self, request: web.Request) -> None:
        """Raises: Refusal NOT_PROVEN, for a wrong token, and for any while the settings have none."""
        expected, shown = self.settings.user_token, authorization(request)
        if expected is None or not compare_digest(shown.encode(), expected.get_secret_value().encode()):
            raise Refusal(Reason.NOT_PROVEN)

    async def _claim(self, request: web.Request) -> web.Response:
        self._check(request)
        said = wire.read_claim(await read_body(request))
        note(request, device=said.device)
        async with request.app[WORLD].database.begin() as tx:
            device = await claims.device(tx, wire.PROTOCOL, said.device)
            await claims.claim(tx, device, claim_of(self.settings, said.account, said.cloud))
            return await _reply(tx, device)

    async def _release(self, request: web.Request) -> web.Response:
        self._check(request)
        name = wire.read_device(await read_body(request))
        note(request, device=name)
        async with request.app[WORLD].database.begin() as tx:
            device = await claims.device(tx, wire.PROTOCOL, name)
            await claims.release(tx, device, now=datetime.now(UTC))
            return await _reply(tx, device)

    async def _get(self, request: web.Request) -> web.Response:
        self._check(request)
        name = wire.read_device(await read_body(request))
        note(request, device=name)
        async with request.app[WORLD].database.read() as tx:
            return await _reply(tx, await claims.device(tx, wire.PROTOCOL, name))

    async def _find(self, request: web.Request) -> web.Response:
        self._check(request)
        asked = wire.read_find(await read_body(request))
        async with request.app[WORLD].database.read() as tx:
            found = await store.page(
                tx, wire.PROTOCOL, product=asked.product, account=asked.account, after=asked.after,
                before=asked.before, limit=asked.limit + 1,
            )  # fmt: skip
        return reply(write_page(found, asked))


async def _reply(tx: Tx, device: Device) -> web.Response:
    (record,) = await store.records(tx, [device])
    return reply(write_record(record))


def write_record(record: Record) -> dict[str, object]:
    """What is not known of a device is not there."""
    device, claim, told = record.device, record.claim, record.told
    fields: dict[str, object] = {
        "id": device.key, "product": device.product, "productId": device.product, "test": told.test,
        "accountId": claim.account if claim else None, "version": told.version,
        "created": device.created_at and wire.write_date(device.created_at),
        "accessed": told.accessed_at and wire.write_date(told.accessed_at),
        "checked": told.checked_at and wire.write_date(told.checked_at),
    }  # fmt: skip
    return {name: value for name, value in fields.items() if value is not None}


def write_page(found: Sequence[Record], asked: wire.Find) -> dict[str, object]:
    """`found` has one record more than was asked for, when there are more in the direction that was asked for.

    `next` and `prev` are there when they lead somewhere.
    """
    backwards = asked.before is not None
    more = len(found) > asked.limit
    shown = (found[1:] if backwards else found[:-1]) if more else found
    page: dict[str, object] = {"data": [write_record(each) for each in shown]}
    if shown and (more or backwards):
        page["next"] = str(shown[-1].device.id)
    if shown and (more if backwards else asked.after is not None):
        page["prev"] = str(shown[0].device.id)
    return page
