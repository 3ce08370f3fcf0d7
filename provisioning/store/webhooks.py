"""The tables `webhook`, `delivery` and `lane`: the outbox.

Locks are taken in this order: the account's row, webhooks, lanes, deliveries. Whoever writes a delivery holds its lane
until the commit; whoever works on the outbox takes the lanes that are free and never waits for one.
"""

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from provisioning.store.database import Tx
from provisioning.store.sealing import SealError

ENQUEUE: Final = """
    WITH wanted AS (
        SELECT w.id, w.account_id, w.receiver FROM webhook w JOIN account a ON a.product_id = w.account_id
        WHERE w.account_id = $1 AND w.kind = $2 ORDER BY w.receiver FOR KEY SHARE OF a, w
    ), held AS (
        INSERT INTO lane (account_id, receiver, subject, due_at) SELECT account_id, receiver, $3, $5 FROM wanted
        ON CONFLICT (receiver, subject) DO UPDATE SET account_id = excluded.account_id
        RETURNING receiver
    )
    INSERT INTO delivery (webhook_id, receiver, subject, kind, body, created_at, due_at)
    SELECT w.id, receiver, $3, $2, $4, $5, $5 FROM held JOIN wanted w USING (receiver)
"""
ADD: Final = """
    INSERT INTO webhook (account_id, url, kind, authorization_token, created_at) VALUES ($1, $2, $3, $4, $5)
"""
COUNT: Final = "SELECT count(*) FROM webhook WHERE account_id = $1"
OF_ACCOUNT: Final = """
    SELECT w.id, p.key AS account, w.url, w.kind, w.created_at FROM webhook w JOIN product p ON p.id = w.account_id
    WHERE w.account_id = $1 ORDER BY w.id
"""
PAGE: Final = """
    SELECT w.id, p.key AS account, w.url, w.kind, w.created_at,
           (SELECT count(*) FROM delivery d WHERE d.webhook_id = w.id AND d.dead_at IS NULL) AS waiting,
           (SELECT count(*) FROM delivery d WHERE d.webhook_id = w.id AND d.dead_at IS NOT NULL) AS dead
    FROM webhook w JOIN product p ON p.id = w.account_id
    WHERE p.protocol = $1 AND ($2::text IS NULL OR p.key = $2) AND w.id > $3 ORDER BY w.id LIMIT $4
"""
KINDS: Final = "SELECT id, kind FROM webhook WHERE account_id = $1 AND url = $2"
SET_TOKEN: Final = "UPDATE webhook SET authorization_token = $2 WHERE id = $1"  # noqa: S105
EXCLUDE: Final = "SELECT FROM account WHERE product_id = $1 FOR UPDATE"
REMOVE_LANES: Final = """
    DELETE FROM lane WHERE receiver IN (SELECT receiver FROM webhook WHERE account_id = $1 AND url = $2)
"""
REMOVE: Final = "DELETE FROM webhook WHERE account_id = $1 AND url = $2 RETURNING id"

# Which lanes may go now: of each receiver so many as it has room for, of these so many as its account has room for,
# accounts in turn. Receivers are found by one step in the index for each, and of one that has 100,000 lanes due no more
# are looked at than may go: with so many lanes of a dead receiver before those of 200 others this takes 1.8 ms, without
# them 1.5 ms.
PICK: Final = """
    WITH RECURSIVE known (receiver) AS (
        (SELECT receiver FROM lane ORDER BY receiver LIMIT 1)
        UNION ALL
        SELECT (SELECT l.receiver FROM lane l WHERE l.receiver > k.receiver ORDER BY l.receiver LIMIT 1)
        FROM known k WHERE k.receiver IS NOT NULL
    ), candidate AS (
        SELECT l.id, l.account_id, l.due_at,
               row_number() OVER (PARTITION BY k.receiver ORDER BY l.due_at, l.id) AS place
        FROM known k
        LEFT JOIN unnest($3::uuid[], $4::int[]) AS busy (receiver, n) ON busy.receiver = k.receiver
        CROSS JOIN LATERAL (
            SELECT id, account_id, due_at FROM lane
            WHERE lane.receiver = k.receiver AND due_at <= $1 AND id <> ALL ($2::bigint[])
            ORDER BY due_at, id LIMIT greatest($5::int - coalesce(busy.n, 0), 0)
        ) l
    ), ranked AS (
        SELECT c.id, c.due_at,
               coalesce(busy.n, 0) + row_number() OVER (PARTITION BY c.account_id ORDER BY c.place, c.due_at) AS place
        FROM candidate c LEFT JOIN unnest($6::bigint[], $7::int[]) AS busy (account_id, n) USING (account_id)
    )
    SELECT id FROM ranked WHERE place <= $8::int ORDER BY place, due_at, id LIMIT $9::int
"""
LEASE: Final = """
    WITH free AS (SELECT id FROM lane WHERE id = ANY($1) AND due_at <= $2 FOR UPDATE SKIP LOCKED)
    UPDATE lane l SET due_at = $3, lease = $4 FROM free WHERE l.id = free.id RETURNING l.id
"""
FIRST: Final = """
    SELECT l.id AS lane, l.account_id, l.receiver, p.key AS account, w.url, w.authorization_token,
           d.id, d.subject, d.kind, d.body, d.attempts, d.created_at
    FROM lane l
    CROSS JOIN LATERAL (
        SELECT * FROM delivery WHERE receiver = l.receiver AND subject = l.subject AND dead_at IS NULL
        ORDER BY id LIMIT 1
    ) d
    JOIN webhook w ON w.id = d.webhook_id JOIN product p ON p.id = w.account_id
    WHERE l.id = ANY($1) ORDER BY d.id
"""
NEXT_DUE: Final = "SELECT min(due_at) FROM lane WHERE due_at > $1"
STANDING: Final = "SELECT id, lease FROM lane WHERE id = ANY($1)"
HOLD: Final = f"{STANDING} FOR UPDATE SKIP LOCKED"
DELIVERED: Final = "DELETE FROM delivery WHERE id = ANY($1)"
FAILED: Final = """
    UPDATE delivery d SET attempts = d.attempts + 1, due_at = r.due_at, error = r.error, dead_at = r.dead_at
    FROM unnest($1::bigint[], $2::timestamptz[], $3::text[], $4::timestamptz[]) AS r (id, due_at, error, dead_at)
    WHERE d.id = r.id AND d.dead_at IS NULL
"""
SETTLE: Final = """
    UPDATE lane l SET due_at = d.due_at, lease = NULL
    FROM lane held CROSS JOIN LATERAL (
        SELECT due_at FROM delivery WHERE receiver = held.receiver AND subject = held.subject AND dead_at IS NULL
        ORDER BY id LIMIT 1
    ) d
    WHERE held.id = ANY($1) AND l.id = held.id RETURNING l.id
"""
DROP: Final = "DELETE FROM lane WHERE id = ANY($1)"
RELEASE: Final = "UPDATE lane SET due_at = $2, lease = NULL WHERE id = ANY($1) AND lease = ANY($3::uuid[])"

DEPTH: Final = """
    SELECT (SELECT count(*) FROM delivery WHERE dead_at IS NULL),
           (SELECT count(*) FROM delivery WHERE dead_at IS NOT NULL)
"""
DEAD: Final = """
    FROM delivery d JOIN webhook w ON w.id = d.webhook_id JOIN account a ON a.product_id = w.account_id
    JOIN product p ON p.id = w.account_id
    WHERE d.dead_at IS NOT NULL AND p.protocol = $1 AND ($2::text IS NULL OR p.key = $2)
      AND ($3::text IS NULL OR w.url = $3)
"""
DEAD_PAGE: Final = f"""
    SELECT d.id, p.key AS account, w.url, d.kind, d.subject, d.created_at, d.dead_at, d.attempts, d.error {DEAD}
    AND ($4::timestamptz IS NULL OR (d.dead_at, d.id) > ($4, $5)) ORDER BY d.dead_at, d.id LIMIT $6
"""
DEAD_IDS: Final = f"""
    SELECT d.id, w.account_id, d.receiver, d.subject {DEAD} AND ($4::bigint[] IS NULL OR d.id = ANY($4))
    ORDER BY d.dead_at, d.id LIMIT $5 FOR KEY SHARE OF a
"""
HOLD_LANES: Final = """
    INSERT INTO lane (account_id, receiver, subject, due_at)
    SELECT DISTINCT account_id, receiver, subject, $4::timestamptz
    FROM unnest($1::bigint[], $2::uuid[], $3::text[]) AS l (account_id, receiver, subject) ORDER BY receiver, subject
    ON CONFLICT (receiver, subject) DO UPDATE SET account_id = excluded.account_id RETURNING id, lease
"""
REVIVE: Final = """
    UPDATE delivery SET dead_at = NULL, attempts = 0, due_at = $2 WHERE id = ANY($1) AND dead_at IS NOT NULL
    RETURNING id
"""
TELL: Final = """SELECT pg_notify('gatehouse', '{"change":"delivery"}')"""
PRUNE: Final = """
    DELETE FROM delivery WHERE id IN (SELECT id FROM delivery WHERE dead_at < $1 ORDER BY dead_at LIMIT $2) RETURNING id
"""


@dataclass(frozen=True, slots=True)
class Webhook:
    id: int
    account: str
    url: str
    kind: str
    created_at: datetime
    waiting: int = 0
    """Deliveries; filled in by listings, as is `dead`."""
    dead: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """The first of a lane, leased."""

    lane: int
    lease: UUID
    id: int
    account_id: int
    account: str
    receiver: UUID
    url: str
    kind: str
    subject: str
    body: str = field(repr=False)
    token: str | None = field(repr=False)
    """None: it does not open."""
    attempts: int
    """Those that are over."""
    created_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What an attempt came to: it is delivered, or due again, or dead."""

    lane: int
    lease: UUID
    id: int
    due_at: datetime | None = None
    dead_at: datetime | None = None
    error: str = ""


@dataclass(frozen=True, slots=True)
class Limits:
    """How many deliveries a process is at, at the same time."""

    total: int = 64
    per_account: int = 16
    per_receiver: int = 8


@dataclass(frozen=True, slots=True)
class Dead:
    """A delivery that was given up."""

    id: int
    account: str
    url: str
    kind: str
    subject: str
    created_at: datetime
    dead_at: datetime
    attempts: int
    error: str


async def enqueue(tx: Tx, account_id: int, *, kind: str, subject: str, body: str, now: datetime) -> None:
    """Write a delivery of `body` for each webhook of the account that wants this kind; it leaves after the commit.

    Deliveries to one URL about one subject keep their order.
    """
    await tx.db.execute(ENQUEUE, account_id, kind, subject, body, now)


# --- webhooks ---


async def add(tx: Tx, account_id: int, url: str, kind: str, *, token: str, now: datetime) -> None:
    """Raises: Refusal DUPLICATE from the transaction, when the URL is told events of this kind already."""
    sealed = tx.sealer.seal(token, _context(account_id, url, kind))
    await tx.db.execute(ADD, account_id, url, kind, sealed, now)


async def count(tx: Tx, account_id: int) -> int:
    return int(await tx.db.fetchval(COUNT, account_id))


async def of_account(tx: Tx, account_id: int) -> list[Webhook]:
    """In the order in which they were made."""
    return [Webhook(**row) for row in await tx.db.fetch(OF_ACCOUNT, account_id)]


async def page(tx: Tx, protocol: str, account: str | None, after: int, limit: int) -> list[Webhook]:
    """Of all accounts, or of the one with this key; in the order of their ids, with their deliveries counted."""
    return [Webhook(**row) for row in await tx.db.fetch(PAGE, protocol, account, after, limit)]


async def set_token(tx: Tx, account_id: int, url: str, token: str) -> int:
    """Of all kinds of the URL; returns how many they are."""
    rows = await tx.db.fetch(KINDS, account_id, url)
    for row in rows:
        await tx.db.execute(SET_TOKEN, row["id"], tx.sealer.seal(token, _context(account_id, url, row["kind"])))
    return len(rows)


async def exclude(tx: Tx, account_id: int) -> None:
    """Wait until nobody is about to write deliveries or webhooks of the account, and let nobody begin."""
    await tx.db.execute(EXCLUDE, account_id)


async def remove(tx: Tx, account_id: int, url: str) -> int:
    """All kinds of the URL, and the deliveries that wait for it. Returns how many kinds they were.

    Nobody enqueues for the account until the transaction ends: `exclude` comes before.
    """
    await tx.db.execute(REMOVE_LANES, account_id, url)
    return len(await tx.db.fetch(REMOVE, account_id, url))


def _context(account_id: object, url: object, kind: object) -> str:
    return f"webhook|{account_id}|{kind}|{url}"


# --- deliveries ---


async def claim(
    tx: Tx, *, now: datetime, until: datetime, lease: UUID, busy: Collection[Delivery], limits: Limits
) -> tuple[list[Delivery], bool]:
    """Lease lanes that are due, and return the first delivery of each; and whether others were about to do the same.

    `busy`: what this process is at, to be left alone and counted.
    """
    receivers, accounts = Counter(each.receiver for each in busy), Counter(each.account_id for each in busy)
    picked = [
        row["id"] for row in await tx.db.fetch(
            PICK, now, [each.lane for each in busy], list(receivers), list(receivers.values()), limits.per_receiver,
            list(accounts), list(accounts.values()), limits.per_account, limits.total - len(busy),
        )
    ]  # fmt: skip
    if not picked:
        return [], False
    leased = [row["id"] for row in await tx.db.fetch(LEASE, picked, now, until, lease)]
    found = [_delivery(tx, dict(row), lease) for row in await tx.db.fetch(FIRST, leased)]
    if abandoned := set(leased) - {each.lane for each in found}:  # their webhook is gone
        await tx.db.execute(DROP, list(abandoned))
    return found, len(leased) < len(picked)


def _delivery(tx: Tx, row: dict[str, object], lease: UUID) -> Delivery:
    sealed = row.pop("authorization_token")
    assert isinstance(sealed, bytes)
    try:
        token = tx.sealer.open(sealed, _context(row["account_id"], row["url"], row["kind"]))
    except SealError:
        token = None
    return Delivery(**row, lease=lease, token=token)  # type: ignore[arg-type] # the columns of FIRST


async def next_due(tx: Tx, now: datetime) -> datetime | None:
    """When a lane is due next that is not now, or a lease ends."""
    found: datetime | None = await tx.db.fetchval(NEXT_DUE, now)
    return found


async def finish(tx: Tx, results: Sequence[Result]) -> set[int]:
    """Write what attempts came to. Returns the lanes that somebody else holds at the moment: try again.

    A result whose lease was lost is not written: another process is at the delivery, or has done it.
    """
    lanes = [each.lane for each in results]
    held = {row["id"]: row["lease"] for row in await tx.db.fetch(HOLD, lanes)}
    ours = [each for each in results if held.get(each.lane) == each.lease]
    if ours:
        failed = [each for each in ours if each.due_at or each.dead_at]
        await tx.db.execute(DELIVERED, [each.id for each in ours if not (each.due_at or each.dead_at)])
        if failed:
            await tx.db.execute(
                FAILED, [each.id for each in failed], [each.due_at or each.dead_at for each in failed],
                [each.error for each in failed], [each.dead_at for each in failed],
            )  # fmt: skip
        await _settle(tx, [each.lane for each in ours])
    missing = [lane for lane in lanes if lane not in held]
    leases = {each.lane: each.lease for each in results}
    standing = await tx.db.fetch(STANDING, missing) if missing else []
    return {row["id"] for row in standing if row["lease"] == leases[row["id"]]}


async def _settle(tx: Tx, lanes: Sequence[int]) -> None:
    """The lanes are held: give them the time of their first delivery, and delete those that have none."""
    settled = {row["id"] for row in await tx.db.fetch(SETTLE, lanes)}
    if empty := [lane for lane in lanes if lane not in settled]:
        await tx.db.execute(DROP, empty)


async def release(tx: Tx, deliveries: Collection[Delivery], now: datetime) -> None:
    """Give leases back: the attempts were broken off."""
    await tx.db.execute(RELEASE, [each.lane for each in deliveries], now, list({each.lease for each in deliveries}))


async def depth(tx: Tx) -> tuple[int, int]:
    """How many deliveries wait, and how many are dead."""
    row = await tx.db.fetchrow(DEPTH)
    assert row is not None
    return row[0], row[1]


# --- dead letters ---


async def dead(
    tx: Tx, protocol: str, after: Dead | None, limit: int, *, account: str | None = None, url: str | None = None
) -> list[Dead]:
    """Oldest first; of one account (its key), of one URL, or all."""
    rows = await tx.db.fetch(
        DEAD_PAGE, protocol, account, url, after and after.dead_at, after.id if after else 0, limit
    )  # fmt: skip
    return [Dead(**row) for row in rows]


async def revive(
    tx: Tx,
    protocol: str,
    *,
    account: str | None = None,
    url: str | None = None,
    ids: Sequence[int] | None = None,
    now: datetime,
    limit: int,
) -> list[int]:
    """Make dead letters due now, with all attempts before them: up to `limit`, oldest first. Returns their ids."""
    rows = await tx.db.fetch(DEAD_IDS, protocol, account, url, ids, limit)
    if not rows:
        return []
    columns = [[row[name] for row in rows] for name in ("account_id", "receiver", "subject")]
    held = await tx.db.fetch(HOLD_LANES, *columns, now)
    revived = [row["id"] for row in await tx.db.fetch(REVIVE, [row["id"] for row in rows], now)]
    await _settle(tx, [row["id"] for row in held if row["lease"] is None])
    await tx.db.execute(TELL)
    return revived


async def prune(tx: Tx, *, now: datetime, limit: int, keep_days: int) -> int:
    """Delete up to `limit` dead letters that were given up more than `keep_days` ago; returns how many."""
    return len(await tx.db.fetch(PRUNE, now - timedelta(days=keep_days), limit))
