"""What replies about modules tell beyond their row: modules of several tags, by serial number, their certificates."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from provisioning.model.root import Standing
from provisioning.store.database import Tx
from provisioning.store.lists import PAGE_SIZE, Page

COUNT_TAGGED: Final = (
    "SELECT count(*) FROM (SELECT DISTINCT device_id FROM tag_module WHERE tag_id = ANY($1)) AS tagged"
)
PAGE_OF_TAGGED: Final = """
    SELECT m.uid FROM (
        SELECT DISTINCT device_id FROM tag_module WHERE tag_id = ANY($1) ORDER BY device_id OFFSET $2 LIMIT $3
    ) AS page JOIN module m USING (device_id) ORDER BY device_id
"""
BY_DEVICE_SERIALS: Final = """
    SELECT device_id FROM module WHERE account_id = $1 AND device_serial = ANY($2) ORDER BY device_id LIMIT $3
"""
INSTALLED: Final = """
    SELECT m.device_id, r.name AS authority, c.serial, c.not_before, c.not_after, c.der,
           CASE WHEN c.status <> 'valid' THEN 'revoked'
                WHEN EXISTS (SELECT FROM command o WHERE o.device_id = m.device_id AND o.kind = $2) THEN 'pending'
                WHEN EXISTS (SELECT FROM certificate_order o WHERE o.device_id = m.device_id AND o.removed)
                THEN 'pending' ELSE 'valid' END AS standing
    FROM module m JOIN certificate c ON c.id = m.certificate_id LEFT JOIN root_ca r ON r.id = m.issuer_id
    WHERE m.device_id = ANY($1)
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Installed:
    """The certificate that a module has, or will have when it has carried out what it was told."""

    authority: str | None
    """Name of the root CA that issued it."""
    serial: str
    """Lower-case hex."""
    not_before: datetime
    not_after: datetime
    der: bytes = field(repr=False)
    standing: Standing


async def tagged(tx: Tx, tag_ids: Sequence[int], number: int) -> Page[str]:
    """Uids of modules that have one of the tags, in the order of their ids."""
    total = await tx.db.fetchval(COUNT_TAGGED, tag_ids)
    offset = (number - 1) * PAGE_SIZE
    if offset >= total:
        return Page([], number, total)
    rows = await tx.db.fetch(PAGE_OF_TAGGED, tag_ids, offset, PAGE_SIZE)
    return Page([row["uid"] for row in rows], number, total)


async def by_device_serials(tx: Tx, account_id: int, serials: Sequence[str], limit: int) -> list[int]:
    """Ids of the account's modules in devices with these serial numbers, `limit` of them at most, in order."""
    return [row["device_id"] for row in await tx.db.fetch(BY_DEVICE_SERIALS, account_id, serials, limit)]


async def installed(tx: Tx, ids: Sequence[int], command: str) -> dict[int, Installed]:
    """Certificates of modules, by their ids; not of those without one. `command`: kind of what hands them out."""
    found = {}
    for row in await tx.db.fetch(INSTALLED, ids, command):
        fields: dict[str, Any] = dict(row)
        device_id = fields.pop("device_id")
        found[device_id] = Installed(**fields | {"standing": Standing(row["standing"])})
    return found
