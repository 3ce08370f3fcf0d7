"""The tables `notification`, `activity` and `clone_event`, and the lists of what they and `suspicion` have.

Lists are of the modules that a `Chosen` selects, in the order in which things happened, a page at a time.
"""
# ruff: noqa: S608 - statements are put together of constants, never of values

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum
from typing import Any, Final, TypeVar

import asyncpg

from provisioning.store.database import Tx
from provisioning.store.lists import PAGE_SIZE, Page

ADD_NOTIFICATION: Final = "INSERT INTO notification (device_id, kind, at, payload) VALUES ($1, $2, $3, $4)"
ADD_ACTIVITY: Final = "INSERT INTO activity (device_id, at, command, result, details) VALUES ($1, $2, $3, $4, $5)"
LAST_PAYLOAD: Final = """
    SELECT payload FROM notification WHERE device_id = $1 AND kind = $2 ORDER BY at DESC, id DESC LIMIT 1
"""
ADD_CLONE_EVENT: Final = """
    INSERT INTO clone_event (account_id, device_id, at, reason, source, imei) VALUES ($1, $2, $3, $4, $5, $6)
"""


class By(Enum):
    """By what modules of an account are chosen."""

    IDS = "ids"
    TAGS = "tags"
    PROFILE = "profile"


# $1 is the account, $2 the value.
MODULES: Final[Mapping[By, str]] = {
    By.IDS: "SELECT device_id FROM module WHERE account_id = $1 AND device_id = ANY($2::bigint[])",
    By.TAGS: """
        SELECT DISTINCT t.device_id FROM tag JOIN tag_module t ON t.tag_id = tag.id
        WHERE tag.account_id = $1 AND tag.folded = ANY($2::text[])
    """,
}
# A profile is asked of each row that is there to be listed, which are few: its modules may be a million.
CONDITIONS: Final[Mapping[By, str]] = {by: f"x.device_id IN ({modules})" for by, modules in MODULES.items()} | {
    By.PROFILE: """x.account_id = $1 AND (
        SELECT m.profile_id IS NOT DISTINCT FROM $2::bigint FROM module m WHERE m.device_id = x.device_id
    )"""
}


@dataclass(frozen=True, slots=True)
class Chosen:
    """Modules of an account.

    `value`: their ids; or names of tags, folded; or the id of a profile, None: those that have none.
    """

    account_id: int
    by: By
    value: Sequence[int] | Sequence[str] | int | None


@dataclass(frozen=True, slots=True)
class Span:
    """From `start` on, until just before `end`."""

    start: datetime
    end: datetime


R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Notification:
    uid: str
    kind: str
    at: datetime
    payload: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Activity:
    at: datetime
    command: str
    result: str
    details: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class CloneEvent:
    uid: str
    at: datetime
    reason: str
    source: str
    """IP address."""
    imei: str | None


@dataclass(frozen=True, slots=True)
class Suspicion:
    uid: str
    reasons: list[str]
    detected_at: datetime
    """When the first of the reasons came up."""
    related: list[str]
    """Uids of up to `MOST_RELATED` others that share what is suspicious."""


MOST_RELATED: Final = 100


async def add_notification(tx: Tx, device_id: int, kind: str, payload: Mapping[str, object], at: datetime) -> None:
    await tx.db.execute(ADD_NOTIFICATION, device_id, kind, at, json.dumps(payload))


async def last_payload(tx: Tx, device_id: int, kind: str) -> Mapping[str, Any] | None:
    """Of the latest notification of this kind about the module."""
    text = await tx.db.fetchval(LAST_PAYLOAD, device_id, kind)
    return json.loads(text) if text else None


async def add_activity(
    tx: Tx,
    device_id: int,
    command: str,
    at: datetime,
    *,
    result: str = "OK",
    details: Mapping[str, object] | None = None,
) -> None:
    await tx.db.execute(ADD_ACTIVITY, device_id, at, command, result, json.dumps(details or {}))


async def add_clone_event(
    tx: Tx, account_id: int, device_id: int, reason: str, at: datetime, *, source: str, imei: str | None = None
) -> None:
    """`source`: IP address. Waits for whoever has locked the module's row, were it this request's other transaction."""
    await tx.db.execute(ADD_CLONE_EVENT, account_id, device_id, at, reason, source, imei)


# OFFSET 0 keeps the planner from another way than by the index of each module: it cannot know how few a tag has.
NOTIFICATIONS: Final = """
    FROM ({}) AS chosen CROSS JOIN LATERAL (
        SELECT n.id, n.at FROM notification n
        WHERE n.device_id = chosen.device_id AND n.at >= $3 AND n.at < $4 AND ($5::text IS NULL OR n.kind = $5) OFFSET 0
    ) AS x
"""
PAGE_OF_NOTIFICATIONS: Final = """
    SELECT m.uid, n.kind, n.at, n.payload
    FROM (SELECT x.id {} ORDER BY x.at, x.id OFFSET $6 LIMIT $7) AS page
    JOIN notification n USING (id) JOIN module m USING (device_id) ORDER BY n.at, n.id
"""
ACTIVITIES: Final = "FROM activity WHERE device_id = $1 AND at >= $2 AND at < $3"
PAGE_OF_ACTIVITIES: Final = f"""
    SELECT at, command, result, details {ACTIVITIES} ORDER BY activity.at, id OFFSET $4 LIMIT $5
"""
CLONE_EVENTS: Final = "FROM clone_event x WHERE {} AND x.at >= $3 AND x.at < $4"
PAGE_OF_CLONE_EVENTS: Final = """
    SELECT m.uid, e.at, e.reason, e.source, e.imei
    FROM (SELECT x.id {} ORDER BY x.at, x.id OFFSET $5 LIMIT $6) AS page
    JOIN clone_event e USING (id) JOIN module m USING (device_id) ORDER BY e.at, e.id
"""
SUSPICIONS: Final = "FROM suspicion x WHERE {}"
PAGE_OF_SUSPICIONS: Final = f"""
    WITH page AS (SELECT DISTINCT x.device_id {{}} ORDER BY x.device_id OFFSET $3 LIMIT $4)
    SELECT m.uid, found.reasons, found.detected_at, related.uids AS related FROM page JOIN module m USING (device_id)
    CROSS JOIN LATERAL (
        SELECT array_agg(s.reason ORDER BY s.reason) AS reasons, min(s.detected_at) AS detected_at
        FROM suspicion s WHERE s.device_id = page.device_id
    ) AS found
    CROSS JOIN LATERAL (
        SELECT ARRAY(
            SELECT o.uid FROM module o WHERE o.device_id IN (
                SELECT other.device_id FROM suspicion s CROSS JOIN LATERAL (
                    SELECT o.device_id FROM suspicion o
                    WHERE (o.account_id, o.reason, o.value) = (s.account_id, s.reason, s.value)
                          AND o.device_id <> s.device_id
                    ORDER BY o.device_id LIMIT {MOST_RELATED}
                ) AS other WHERE s.device_id = page.device_id
            ) ORDER BY o.device_id LIMIT {MOST_RELATED}
        ) AS uids
    ) AS related
    ORDER BY page.device_id
"""


async def notifications(tx: Tx, chosen: Chosen, span: Span, kind: str | None, number: int) -> Page[Notification]:
    """`kind` None: of all kinds. `chosen` not by profile."""
    source = NOTIFICATIONS.format(MODULES[chosen.by])
    statements = f"SELECT count(*) {source}", PAGE_OF_NOTIFICATIONS.format(source)
    given = (chosen.account_id, chosen.value, span.start, span.end, kind)
    return await _list(tx, statements, given, number, _notification)


async def activities(tx: Tx, device_id: int, span: Span, number: int) -> Page[Activity]:
    statements = f"SELECT count(*) {ACTIVITIES}", PAGE_OF_ACTIVITIES
    return await _list(tx, statements, (device_id, span.start, span.end), number, _activity)


async def clone_events(tx: Tx, chosen: Chosen, span: Span, number: int) -> Page[CloneEvent]:
    source = CLONE_EVENTS.format(CONDITIONS[chosen.by])
    statements = f"SELECT count(*) {source}", PAGE_OF_CLONE_EVENTS.format(source)
    given = (chosen.account_id, chosen.value, span.start, span.end)
    return await _list(tx, statements, given, number, lambda row: CloneEvent(**row))


async def suspicions(tx: Tx, chosen: Chosen, number: int) -> Page[Suspicion]:
    """One row for each module, in the order of their ids."""
    source = SUSPICIONS.format(CONDITIONS[chosen.by])
    statements = f"SELECT count(DISTINCT x.device_id) {source}", PAGE_OF_SUSPICIONS.format(source)
    return await _list(tx, statements, (chosen.account_id, chosen.value), number, lambda row: Suspicion(**row))


async def _list(
    tx: Tx, statements: tuple[str, str], given: Sequence[object], number: int, make: Callable[[asyncpg.Record], R]
) -> Page[R]:
    count, select = statements
    total = await tx.db.fetchval(count, *given)
    offset = (number - 1) * PAGE_SIZE
    if offset >= total:
        return Page([], number, total)
    rows = await tx.db.fetch(select, *given, offset, PAGE_SIZE)
    return Page([make(row) for row in rows], number, total)


def _notification(row: asyncpg.Record) -> Notification:
    return Notification(row["uid"], row["kind"], row["at"], json.loads(row["payload"]))


def _activity(row: asyncpg.Record) -> Activity:
    return Activity(row["at"], row["command"], row["result"], json.loads(row["details"]))


# From the oldest on: by the index of times.
PRUNE: Final = """
    WITH old AS (SELECT id FROM {0} WHERE at < $1 ORDER BY at LIMIT $2 FOR UPDATE SKIP LOCKED)
    DELETE FROM {0} USING old WHERE {0}.id = old.id
"""


async def prune(tx: Tx, *, now: datetime, limit: int, keep_days: int) -> int:
    """Delete up to `limit` notifications, activities and clone events older than `keep_days`; returns how many."""
    count = 0
    for table in ("notification", "activity", "clone_event"):
        done = await tx.db.execute(PRUNE.format(table), now - timedelta(days=keep_days), limit - count)
        count += int(done.rpartition(" ")[2])
    return count
