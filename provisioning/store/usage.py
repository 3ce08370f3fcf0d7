"""The table `usage`: how often what was used, by the second while it is young, by the day (UTC) later."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Final

from provisioning.store.database import Tx

VISIBLE_AFTER: Final = timedelta(minutes=5)
YOUNG: Final = timedelta(minutes=10)
KEPT: Final = timedelta(days=90)

COUNT: Final = """
    INSERT INTO usage AS u (device_id, kind, at, account_id, n)
    VALUES ($1, $2, date_trunc('second', $3::timestamptz), $4, 1)
    ON CONFLICT (device_id, kind, at) DO UPDATE SET n = u.n + 1
"""
SUMS: Final = """
    SELECT m.uid, array_agg(used.kind) AS kinds, array_agg(used.n) AS sums
    FROM ({}) AS used JOIN module m USING (device_id)
    GROUP BY m.device_id, m.uid ORDER BY m.device_id LIMIT $5
"""
OF_ALL: Final = SUMS.format("""
    SELECT device_id, kind, sum(n)::bigint AS n FROM usage
    WHERE account_id = $1 AND at >= $2 AND at < $3 AND at <= $4 GROUP BY device_id, kind
""")
# OFFSET 0 keeps the planner from another way than by the rows of each module: it cannot know how few a tag has.
OF_SOME: Final = SUMS.format("""
    SELECT chosen.device_id, each.kind, each.n FROM ({}) AS chosen CROSS JOIN LATERAL (
        SELECT u.kind, sum(u.n)::bigint AS n FROM usage u
        WHERE u.device_id = chosen.device_id AND u.at >= $2 AND u.at < $3 AND u.at <= $4 GROUP BY u.kind OFFSET 0
    ) AS each
""")
OF_IDS: Final = OF_SOME.format("SELECT device_id FROM module WHERE account_id = $1 AND device_id = ANY($6::bigint[])")
TAGGED: Final = OF_SOME.format("""
    SELECT DISTINCT t.device_id FROM tag JOIN tag_module t ON t.tag_id = tag.id
    WHERE tag.account_id = $1 AND tag.folded = ANY($6::text[])
""")
# The condition is that of the index `usage_young`: the days, which are many more, are not looked at.
COMPACT: Final = """
    WITH old AS (
        SELECT device_id, kind, at FROM usage
        WHERE at < $1 AND at AT TIME ZONE 'UTC' <> date_trunc('day', at AT TIME ZONE 'UTC')
        ORDER BY at LIMIT $2 FOR UPDATE SKIP LOCKED
    ), gone AS (
        DELETE FROM usage u USING old WHERE (u.device_id, u.kind, u.at) = (old.device_id, old.kind, old.at)
        RETURNING u.*
    ), kept AS (
        INSERT INTO usage AS u (device_id, kind, at, account_id, n)
        SELECT device_id, kind, date_trunc('day', at, 'UTC') AS day, account_id, sum(n) FROM gone
        GROUP BY device_id, kind, day, account_id ORDER BY device_id, kind, day
        ON CONFLICT (device_id, kind, at) DO UPDATE SET n = u.n + excluded.n
    )
    SELECT count(*) FROM gone
"""
PRUNE: Final = """
    WITH old AS (
        SELECT device_id, kind, at FROM usage WHERE at < $1 ORDER BY at LIMIT $2 FOR UPDATE SKIP LOCKED
    )
    DELETE FROM usage u USING old WHERE (u.device_id, u.kind, u.at) = (old.device_id, old.kind, old.at)
"""


@dataclass(frozen=True, slots=True)
class Days:
    """From the first to the last, in UTC."""

    first: date
    last: date


async def count(tx: Tx, account_id: int, device_id: int, kind: str, now: datetime) -> None:
    """Once more."""
    await tx.db.execute(COUNT, device_id, kind, now, account_id)


async def sums(
    tx: Tx,
    account_id: int,
    days: Days,
    *,
    now: datetime,
    limit: int,
    ids: Sequence[int] | None = None,
    tags: Sequence[str] | None = None,
) -> dict[str, Mapping[str, int]]:
    """Uid of each module that has used something -> kind -> how often, but for what is younger than `VISIBLE_AFTER`.

    Of all modules of the account, or of those with these ids, or with one of these tags (folded names); of `limit` of
    them at most, in the order of their ids.
    """
    start = datetime.combine(days.first, time(), UTC)
    end = datetime.combine(days.last, time.max, UTC)
    given = (account_id, start, end, now - VISIBLE_AFTER, limit)
    if ids is not None:
        rows = await tx.db.fetch(OF_IDS, *given, ids)
    elif tags is not None:
        rows = await tx.db.fetch(TAGGED, *given, tags)
    else:
        rows = await tx.db.fetch(OF_ALL, *given)
    return {row["uid"]: dict(zip(row["kinds"], row["sums"], strict=True)) for row in rows}


async def compact(tx: Tx, *, now: datetime, limit: int) -> int:
    """Add up to `limit` rows that are no longer young to those of their days; returns how many they were."""
    return int(await tx.db.fetchval(COMPACT, now - YOUNG, limit))


async def prune(tx: Tx, *, now: datetime, limit: int) -> int:
    """Delete up to `limit` rows older than `KEPT`; returns how many."""
    return int((await tx.db.execute(PRUNE, now - KEPT, limit)).rpartition(" ")[2])
