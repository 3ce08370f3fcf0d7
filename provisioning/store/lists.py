"""The table `tally`: any page of a long list, and its length, without reading the pages before.

A list is of ids; rows of `tally` say how many of each thousand ids are in it. See the migration for who writes them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import IntEnum
from typing import Final, Generic, TypeVar

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
LENGTHS: Final = """
    SELECT owner, sum(n)::bigint AS n FROM tally WHERE kind = $1 AND owner = ANY($2) AND bucket = 0 GROUP BY owner
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


LENGTH_OF: Final[Mapping[List, int]] = {List.OF_PROFILE: 9, List.TAGGED: 10}
"""Lists whose owners are listed with their lengths: these stand by themselves in bucket 0 of another kind."""


T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """Up to `PAGE_SIZE` records of a list that has `total`. Past the end there are none."""

    records: Sequence[T]
    number: int
    """From 1 on."""
    total: int


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


async def lengths(tx: Tx, which: List, owners: Sequence[int]) -> dict[int, int]:
    """How long these owners' lists are, one of `LENGTH_OF`; those without an entry are empty."""
    rows = await tx.db.fetch(LENGTHS, LENGTH_OF[which], owners)
    return {row["owner"]: row["n"] for row in rows}


async def compact(tx: Tx, *, now: datetime, limit: int = 1_000) -> int:  # noqa: ARG001 - as all works of the upkeep
    """Make sums of the rows of up to `limit` buckets; returns how many rows they were."""
    return int(await tx.db.fetchval(COMPACT, limit))
