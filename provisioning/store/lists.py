"""The table `tally`: any page of a long list, and its length, without reading the pages before.

A list is of ids; rows of `tally` say how many of each thousand ids are in it. See the migration for who writes them.
"""

from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from provisioning.store.database import Tx

PAGE_SIZE: Final = 100
BUCKET: Final = 1_000

LOCATE: Final = """
    WITH bucket AS (
        SELECT bucket, sum(n)::bigint AS n FROM tally WHERE kind = $1 AND owner = $2 GROUP BY bucket
    ), upto AS (
        SELECT bucket, n, sum(n) OVER (ORDER BY bucket)::bigint AS upto FROM bucket
    )
    SELECT (SELECT coalesce(sum(n), 0)::bigint FROM bucket) AS total, bucket, upto - n AS before
    FROM (SELECT true) AS one LEFT JOIN LATERAL (
        SELECT bucket, n, upto FROM upto WHERE n > 0 AND upto > $3 ORDER BY bucket LIMIT 1
    ) AS place ON true
"""
# Of a bucket that several rows are about one is left, or none.
COMPACT: Final = """
    WITH crowded AS (
        SELECT kind, owner, bucket FROM tally GROUP BY kind, owner, bucket
        HAVING count(*) > 1 OR sum(n) = 0 LIMIT $1
    ), gone AS (
        DELETE FROM tally t USING crowded c
        WHERE (t.kind, t.owner, t.bucket) = (c.kind, c.owner, c.bucket) RETURNING t.*
    ), kept AS (
        INSERT INTO tally SELECT kind, owner, bucket, sum(n) FROM gone GROUP BY kind, owner, bucket HAVING sum(n) <> 0
    )
    SELECT count(*) FROM gone
"""


class List(IntEnum):
    """Which list; its owner is an account unless stated."""

    MODULES = 1
    WHITELISTED = 2
    BLACKLISTED = 3
    OF_PROFILE = 4
    """Owner: the device profile."""
    UNATTRIBUTED = 5
    """Modules without a device profile."""
    WHITELIST = 6
    """Its entries: ids of `whitelist`. All others are of device ids."""
    TAGGED = 7
    """Owner: the tag."""
    ISSUED = 8
    """Modules that have a certificate. Owner: the root CA."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a page begins: at `first`, but for the next `skip` ids of the list. `first` None: past the end."""

    total: int
    first: int | None
    skip: int = 0


async def locate(tx: Tx, which: List, owner: int, page: int, size: int = PAGE_SIZE) -> Place:
    """Of the page with that number, from 1 on."""
    offset = (page - 1) * size
    row = await tx.db.fetchrow(LOCATE, int(which), owner, min(offset, 2**62))
    assert row is not None
    if row["bucket"] is None:
        return Place(row["total"], None)
    return Place(row["total"], row["bucket"] * BUCKET, offset - row["before"])


async def compact(tx: Tx, limit: int = 1_000) -> int:
    """Make sums of the rows of up to `limit` buckets; returns how many rows they were."""
    return int(await tx.db.fetchval(COMPACT, limit))
