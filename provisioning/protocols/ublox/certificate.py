"""Device certificates: renew, update, delete, transfer and revoke. Contract: sections 3 and 4.7.

All but `revoke` are orders that the device's next security heartbeat carries out: see `issuing`. An order takes the
place of the one that the device had, but for an update that is under way, which comes to its end first.
"""

from collections.abc import Sequence
from typing import Annotated, Final

from pydantic import BeforeValidator, Field, WithJsonSchema

from provisioning.core import pki
from provisioning.core import roots as authorities
from provisioning.model.module import Module
from provisioning.model.refusal import Reason, Refusal
from provisioning.model.root import Order, OrderKind, Root
from provisioning.protocols.ublox import refusals, rootca, selection
from provisioning.protocols.ublox.call import Call
from provisioning.protocols.ublox.reading import MOST, CaName, Form, Uid, Uids
from provisioning.protocols.ublox.rootca import DeviceDays
from provisioning.store import certificates, modules, roots

UPDATING: Final = "Request aborted. The certificate update of ROTPublicUID(s) is still in progress"


def _serial(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError("must be a string")  # noqa: TRY004 - pydantic wants it
    try:
        return pki.read_serial(value)
    except Refusal as refusal:
        raise ValueError(str(refusal)) from None


Serial = Annotated[
    str, BeforeValidator(_serial), WithJsonSchema({"type": "string", "pattern": "^0*[1-9A-Fa-f][0-9A-Fa-f]{0,39}$"})
]
"""Hexadecimal; colons, blanks, capitals, `0x` and leading zeros do not matter."""
Serials = Annotated[list[Serial], Field(max_length=MOST)]


class Renew(Form):
    ONE_OF = (("ROTPublicUIDs", "SerialNumbers"),)
    name: CaName = Field(alias="CAName")
    days: DeviceDays = Field(alias="DeviceCertificateValidity")
    uids: Uids | None = Field(None, alias="ROTPublicUIDs")
    serials: Serials | None = Field(None, alias="SerialNumbers")


class Update(Form):
    ONE_OF = (("ROTPublicUIDs", "SerialNumbers"),)
    name: CaName = Field(alias="CAName")
    uids: Uids | None = Field(None, alias="ROTPublicUIDs")
    serials: Serials | None = Field(None, alias="SerialNumbers")


class Delete(Form):
    uids: Annotated[Uids, Field(min_length=1)] = Field(alias="ROTPublicUIDs")


class Revoke(Form):
    ONE_OF = (("ROTPublicUID", "SerialNumber"),)
    name: CaName = Field(alias="CAName")
    uid: Uid | None = Field(None, alias="ROTPublicUID")
    serial: Serial | None = Field(None, alias="SerialNumber")


class Transfer(Form):
    of: CaName = Field(alias="FromCA")
    to: CaName = Field(alias="ToCA")
    uids: Annotated[Uids, Field(min_length=1)] = Field(alias="ROTPublicUIDs")


# --- orders ----------------------------------------------------------------------------------------------------------


async def renew(call: Call, asked: Renew) -> None:
    """Raises: Refusal UNKNOWN, MALFORMED, DEVICE_UNKNOWN, IN_USE; a revoked certificate cannot be renewed."""
    root = await _issuing(call, asked.name, "CAName")
    chosen = await _chosen(call, root, asked.uids, asked.serials)
    if await roots.with_revoked(call.tx, [each.id for each in chosen]):
        raise refusals.invalid("ROTPublicUIDs" if asked.uids else "SerialNumbers")
    await _refuse_updating(call, chosen)
    await _order(call, chosen, OrderKind.RENEW, root, days=asked.days)


async def update(call: Call, asked: Update) -> None:
    """One that is under way goes on as it is. Raises: Refusal UNKNOWN, MALFORMED, DEVICE_UNKNOWN."""
    root = await _issuing(call, asked.name, "CAName")
    chosen = await _chosen(call, root, asked.uids, asked.serials)
    updating = await _updating(call, chosen)
    await _order(call, [each for each in chosen if each.id not in updating], OrderKind.UPDATE, root)


async def delete(call: Call, asked: Delete) -> None:
    """Raises: Refusal DEVICE_UNKNOWN, MALFORMED, IN_USE."""
    chosen = await _lock(call, await selection.by_uids(call, asked.uids))
    if any(each.certificate_id is None for each in chosen):
        raise refusals.invalid("ROTPublicUIDs")
    await _refuse_updating(call, chosen)
    await roots.add_orders(
        call.tx,
        [
            Order(device_id=each.id, kind=OrderKind.DELETE, root_ca_id=each.issuer_id, ordered_at=call.now)
            for each in chosen if each.issuer_id is not None
        ],
    )  # fmt: skip


async def transfer(call: Call, asked: Transfer) -> None:
    """Raises: Refusal UNKNOWN, MALFORMED, DEVICE_UNKNOWN, IN_USE."""
    of, to = await rootca.find(call, asked.of), await _issuing(call, asked.to, "ToCA")
    if of.id == to.id:
        raise refusals.invalid("ToCA")
    chosen = await _chosen(call, of, asked.uids, None)
    await _refuse_updating(call, chosen)
    await _order(call, chosen, OrderKind.TRANSFER, to)


async def _issuing(call: Call, name: str, field: str) -> Root:
    """The account's root CA, which issues. Raises: Refusal UNKNOWN; MALFORMED with `field`, when it has expired."""
    root = await rootca.find(call, name)
    if not root.may_issue(call.now):
        raise refusals.invalid(field)
    return root


async def _chosen(call: Call, root: Root, uids: Sequence[str] | None, serials: Sequence[str] | None) -> list[Module]:
    """Modules with a certificate of the root CA, locked, in the order of their ids.

    Raises:
        Refusal: DEVICE_UNKNOWN: a uid is not the account's; MALFORMED: the module has no certificate of this root CA;
            UNKNOWN: no module has the certificate of this serial number now.
    """
    if uids:
        chosen = await _lock(call, await selection.by_uids(call, uids))
        if any(each.certificate_id is None or each.issuer_id != root.id for each in chosen):
            raise refusals.invalid("ROTPublicUIDs")
        return chosen
    wanted = set(serials or ())
    await modules.lock(call.tx, list((await roots.by_serials(call.tx, root, list(wanted))).values()))
    found = await roots.by_serials(call.tx, root, list(wanted))  # as they are now
    if missing := wanted - found.keys():
        raise Refusal(Reason.UNKNOWN, certificate=min(missing))
    return await modules.by_ids(call.tx, list(found.values()))


async def _lock(call: Call, found: Sequence[Module]) -> list[Module]:
    """As they are now, in the order of their ids; nobody changes them, and no heartbeat of theirs is under way."""
    return await modules.lock(call.tx, [each.id for each in found])


async def _updating(call: Call, chosen: Sequence[Module]) -> set[int]:
    orders = await roots.orders(call.tx, [each.id for each in chosen])
    return {each for each, order in orders.items() if order.kind is OrderKind.UPDATE}


async def _refuse_updating(call: Call, chosen: Sequence[Module]) -> None:
    """Raises: Refusal IN_USE."""
    if await _updating(call, chosen):
        raise Refusal(Reason.IN_USE, message=UPDATING)


async def _order(call: Call, chosen: Sequence[Module], kind: OrderKind, root: Root, *, days: int | None = None) -> None:
    await roots.add_orders(
        call.tx,
        [
            Order(device_id=each.id, kind=kind, root_ca_id=root.id, days=days, ordered_at=call.now)
            for each in chosen
        ],
    )  # fmt: skip


# --- revocation ------------------------------------------------------------------------------------------------------


async def revoke(call: Call, asked: Revoke) -> None:
    """At once, for good; it stays on the device. By serial number, also one that the device has no more.

    Raises:
        Refusal: UNKNOWN, MALFORMED, DEVICE_UNKNOWN, IN_USE.
    """
    root = await rootca.find(call, asked.name)
    if asked.uid is not None:
        (module,) = await _lock(call, [await selection.by_uid(call, asked.uid)])
        if module.certificate_id is None or module.issuer_id != root.id:
            raise refusals.invalid("ROTPublicUID")
        found = await certificates.by_id(call.tx, module.certificate_id)
    else:
        found = await certificates.find(call.tx, root.authority_id, asked.serial or "")
    if found is None:
        raise Refusal(Reason.UNKNOWN, certificate=asked.serial)
    for module in await modules.lock(call.tx, [found.device_id] if found.device_id is not None else []):
        if module.certificate_id == found.id:
            await _refuse_updating(call, [module])
            await _drop_renewal(call, module)
    await authorities.revoke(call.tx, root, found, now=call.now)


async def _drop_renewal(call: Call, module: Module) -> None:
    """It would keep the key of a revoked certificate."""
    order = (await roots.orders(call.tx, [module.id])).get(module.id)
    if order is not None and order.kind is OrderKind.RENEW:
        await roots.drop_order(call.tx, module.id)
