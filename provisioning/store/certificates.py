"""The table `certificate`: what the authorities issued, and what became of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

import asyncpg

from provisioning.model.certificate import Certificate, CrlEntry, Profile, Revocation, Status
from provisioning.model.identity import Identity
from provisioning.store.database import Tx

FROM: Final = """
    FROM certificate c LEFT JOIN device d ON d.id = c.device_id LEFT JOIN product p ON p.id = d.product_id
"""
COLUMNS: Final = """
    c.id, c.authority_id, c.serial, c.fingerprint, c.der, c.device_id, c.profile, c.cn, c.not_before, c.not_after,
    c.status, c.reason, c.revoked_at, c.superseded_by, c.last_seen_at, c.created_at, d.protocol,
    p.key AS product, d.key AS device
"""
SELECT: Final = f"SELECT {COLUMNS} {FROM}"
BY_ID: Final = f"{SELECT} WHERE c.id = $1"
FIND: Final = f"{SELECT} WHERE c.authority_id = $1 AND c.serial = $2"
BY_SERIAL: Final = f"{SELECT} WHERE c.serial = $1 ORDER BY c.id"
BY_FINGERPRINTS: Final = f"{SELECT} WHERE c.fingerprint = ANY($1)"
OF_DEVICE: Final = f"{SELECT} WHERE c.device_id = $1 ORDER BY c.id"
LIST: Final = f"""
    {SELECT} WHERE ($1::bigint IS NULL OR c.authority_id = $1) AND ($2::bigint IS NULL OR c.device_id = $2)
             AND ($3::text IS NULL OR c.status = $3) AND ($4::text IS NULL OR c.profile = $4)
             AND ($5::text IS NULL OR c.cn = $5) AND ($6::timestamptz IS NULL OR c.not_after >= $6)
             AND ($7::timestamptz IS NULL OR c.not_after < $7) AND c.id > $8
    ORDER BY c.id LIMIT $9
"""
LOCK_NAME: Final = "SELECT pg_advisory_xact_lock(hashtextextended('certificate ' || $1, 0))"
NAME_IN_USE: Final = """
    SELECT EXISTS (
        SELECT FROM certificate c JOIN authority a ON a.id = c.authority_id
        WHERE c.cn = $1 AND c.status <> 'revoked' AND c.not_after > $2 AND NOT a.of_account)
"""
LOCK: Final = "SELECT FROM certificate WHERE id = $1 FOR NO KEY UPDATE"
KEEP_DEVICE: Final = "SELECT FROM device WHERE id = $1 FOR KEY SHARE"
LOCK_OF_DEVICE: Final = """
    SELECT FROM certificate WHERE device_id = $1 AND status <> 'revoked' ORDER BY id FOR NO KEY UPDATE
"""
# No row: the serial number is taken. The caller draws another one.
INSERT: Final = """
    INSERT INTO certificate (authority_id, serial, fingerprint, der, device_id, profile, cn, not_before, not_after)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
    ON CONFLICT (authority_id, serial) DO NOTHING RETURNING id, created_at
"""
SET_STATUS: Final = "UPDATE certificate SET status = $2, reason = $3, revoked_at = $4 WHERE id = $1"
SUPERSEDE: Final = "UPDATE certificate SET superseded_by = $2 WHERE id = $1"
# Rows are locked in one order whoever writes: no deadlock between processes.
NOTE_SEEN: Final = """
    WITH seen AS (SELECT * FROM unnest($1::bigint[], $2::timestamptz[]) s (id, at)),
         held AS (SELECT c.id FROM certificate c JOIN seen USING (id) ORDER BY c.id FOR NO KEY UPDATE OF c)
    UPDATE certificate c SET last_seen_at = greatest(c.last_seen_at, seen.at) FROM seen, held
    WHERE c.id = seen.id AND held.id = c.id
"""
# RFC 5280, 3.3: an entry stays until it has stood on one CRL that was made after the certificate expired.
CRL_ENTRIES: Final = """
    SELECT serial, revoked_at, reason FROM certificate
    WHERE authority_id = $1 AND status <> 'valid' AND not_after >= $2 ORDER BY revoked_at, id
"""
# Whatever stands on a CRL, in one number: any change of it is another number.
CRL_MARKER: Final = """
    SELECT count(*) || ' ' || coalesce(sum(hashtextextended(
        concat_ws(' ', serial, status, reason, extract(epoch FROM revoked_at)), 0)), 0)
    FROM certificate WHERE authority_id = $1 AND status <> 'valid'
"""
# A successor counts when it, or one that took its own place, was seen later than the certificate itself: a device that
# has gone back to its old certificate still needs it.
REPLACED: Final = """
    WITH RECURSIVE line (start, next) AS (
        SELECT c.id, c.superseded_by FROM certificate c
        WHERE c.superseded_by IS NOT NULL AND c.status <> 'revoked' AND ($2::bigint IS NULL OR c.id = $2)
        UNION
        SELECT line.start, n.superseded_by FROM line JOIN certificate n ON n.id = line.next
        WHERE n.superseded_by IS NOT NULL
    )
    SELECT DISTINCT c.id FROM line JOIN certificate c ON c.id = line.start JOIN certificate n ON n.id = line.next
    WHERE n.last_seen_at > coalesce(c.last_seen_at, '-infinity') AND n.status = 'valid' AND n.not_after > $1
    ORDER BY c.id LIMIT $3
"""
# The shortest threshold that is reached counts. One longer than half of the certificate's life says nothing; one whose
# successor the device already uses needs no warning. Accounts are warned of their own: see `roots`.
EXPIRING: Final = """
    WITH due AS (
        SELECT c.id, min(t.days) AS days FROM certificate c CROSS JOIN unnest($2::integer[]) t (days)
        WHERE c.status <> 'revoked' AND c.profile <> 'ocsp' AND c.not_after > $1
              AND c.not_after <= $1 + make_interval(days => (SELECT max(days) FROM unnest($2::integer[]) m (days)))
              AND c.not_after <= $1 + make_interval(days => t.days)
              AND c.not_after - c.not_before >= make_interval(days => 2 * t.days)
              AND NOT EXISTS (SELECT FROM certificate n WHERE n.id = c.superseded_by AND n.last_seen_at IS NOT NULL)
              AND NOT EXISTS (SELECT FROM authority a WHERE a.id = c.authority_id AND a.of_account)
        GROUP BY c.id
    ), held AS (
        SELECT c.id, due.days FROM certificate c JOIN due USING (id)
        WHERE c.warned_days IS NULL OR c.warned_days > due.days
        ORDER BY c.id LIMIT $3 FOR NO KEY UPDATE OF c SKIP LOCKED
    )
    UPDATE certificate c SET warned_days = held.days FROM held
    WHERE c.id = held.id RETURNING c.id
"""
BY_IDS: Final = f"{SELECT} WHERE c.id = ANY($1) ORDER BY c.id"


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """Which certificates to list; None: any."""

    authority_id: int | None = None
    device_id: int | None = None
    status: Status | None = None
    profile: Profile | None = None
    cn: str | None = None
    expires_from: datetime | None = None
    expires_before: datetime | None = None


def _certificate(row: asyncpg.Record) -> Certificate:
    fields: dict[str, Any] = dict(row)
    protocol, product, device = fields.pop("protocol"), fields.pop("product"), fields.pop("device")
    fields["identity"] = Identity(protocol, product or "", device or "") if protocol is not None else None
    fields["fingerprint"] = row["fingerprint"].hex()
    fields["profile"] = Profile(row["profile"])
    fields["status"] = Status(row["status"])
    fields["reason"] = Revocation(row["reason"]) if row["reason"] else None
    return Certificate(**fields)


async def by_id(tx: Tx, certificate_id: int) -> Certificate | None:
    row = await tx.db.fetchrow(BY_ID, certificate_id)
    return _certificate(row) if row else None


async def by_ids(tx: Tx, ids: Sequence[int]) -> list[Certificate]:
    """In the order of their ids."""
    return [_certificate(row) for row in await tx.db.fetch(BY_IDS, ids)]


async def find(tx: Tx, authority_id: int, serial: str) -> Certificate | None:
    row = await tx.db.fetchrow(FIND, authority_id, serial)
    return _certificate(row) if row else None


async def by_serial(tx: Tx, serial: str) -> list[Certificate]:
    """Whoever issued them: a serial number is unique within its authority."""
    return [_certificate(row) for row in await tx.db.fetch(BY_SERIAL, serial)]


async def by_fingerprints(tx: Tx, fingerprints: Sequence[str]) -> dict[str, Certificate]:
    """Those that there are, by SHA-256 fingerprint (hexadecimal, lower case)."""
    rows = await tx.db.fetch(BY_FINGERPRINTS, [bytes.fromhex(each) for each in fingerprints])
    return {row["fingerprint"].hex(): _certificate(row) for row in rows}


async def by_fingerprint(tx: Tx, fingerprint: str) -> Certificate | None:
    return (await by_fingerprints(tx, [fingerprint])).get(fingerprint)


async def of_device(tx: Tx, device_id: int) -> list[Certificate]:
    """All that the device has had, oldest first."""
    return [_certificate(row) for row in await tx.db.fetch(OF_DEVICE, device_id)]


async def page(tx: Tx, which: Filter, after: int, limit: int) -> list[Certificate]:
    """Certificates with an id above `after`, in that order. The window of expiry is half open."""
    rows = await tx.db.fetch(
        LIST, which.authority_id, which.device_id, which.status and str(which.status),
        which.profile and str(which.profile), which.cn, which.expires_from, which.expires_before, after, limit,
    )  # fmt: skip
    return [_certificate(row) for row in rows]


async def lock_name(tx: Tx, cn: str) -> None:
    """Let one transaction at a time issue under this common name."""
    await tx.db.execute(LOCK_NAME, cn)


async def is_name_in_use(tx: Tx, cn: str, now: datetime) -> bool:
    """Does a certificate of this common name live that is not revoked? Those that accounts issue do not count."""
    return bool(await tx.db.fetchval(NAME_IN_USE, cn, now))


async def lock(tx: Tx, certificate: Certificate) -> Certificate:
    """The certificate as it stands now, held until the transaction ends."""
    await tx.db.fetchrow(LOCK, certificate.id)
    return await by_id(tx, certificate.id) or certificate


async def lock_with_device(tx: Tx, certificate: Certificate) -> Certificate:
    """As `lock`, and its device stays: first the device, as its deletion does, so that they do not wait in a ring."""
    if certificate.device_id is not None:
        await tx.db.fetchrow(KEEP_DEVICE, certificate.device_id)
    return await lock(tx, certificate)


async def lock_of_device(tx: Tx, device_id: int) -> list[Certificate]:
    """Those of the device that are not revoked, held until the transaction ends."""
    await tx.db.fetch(LOCK_OF_DEVICE, device_id)
    return [each for each in await of_device(tx, device_id) if each.status is not Status.REVOKED]


async def add(tx: Tx, certificate: Certificate) -> Certificate | None:
    """None: the authority has issued this serial number before.

    Raises: Refusal DUPLICATE from the transaction for the same certificate twice, IN_USE when the device is gone.
    """
    row = await tx.db.fetchrow(
        INSERT, certificate.authority_id, certificate.serial, bytes.fromhex(certificate.fingerprint), certificate.der,
        certificate.device_id, str(certificate.profile), certificate.cn, certificate.not_before, certificate.not_after,
    )  # fmt: skip
    return replace(certificate, id=row["id"], created_at=row["created_at"]) if row else None


async def set_status(tx: Tx, certificate: Certificate) -> None:
    """Write status, reason and time, as they stand in `certificate`. Every process hears of it at the commit."""
    reason = str(certificate.reason) if certificate.reason else None
    await tx.db.execute(SET_STATUS, certificate.id, str(certificate.status), reason, certificate.revoked_at)


async def supersede(tx: Tx, certificate: Certificate, successor: Certificate) -> None:
    await tx.db.execute(SUPERSEDE, certificate.id, successor.id)


async def note_seen(tx: Tx, seen: Mapping[int, datetime]) -> None:
    """Record certificate id -> when a device last proved its key. A time never goes back.

    Raises:
        Refusal: UNAVAILABLE from the transaction, also when a bulk deletion of devices crosses: try again.
    """
    ids = sorted(seen)
    await tx.db.execute(NOTE_SEEN, ids, [seen[i] for i in ids])


async def is_successor_seen(tx: Tx, certificate: Certificate, now: datetime) -> bool:
    """Does the device use a valid certificate that took the place of this one?"""
    return await tx.db.fetchrow(REPLACED, now, certificate.id, 1) is not None


async def replaced(tx: Tx, now: datetime, limit: int) -> list[Certificate]:
    """Those not revoked whose place is taken, as `is_successor_seen` has it; at most `limit`."""
    ids = [row["id"] for row in await tx.db.fetch(REPLACED, now, None, limit)]
    return [_certificate(row) for row in await tx.db.fetch(BY_IDS, ids)]


async def take_expiring(tx: Tx, now: datetime, thresholds: Sequence[int], limit: int) -> list[Certificate]:
    """Those that have reached one more of `thresholds` (days before expiry), marked as told; at most `limit`."""
    ids = [row["id"] for row in await tx.db.fetch(EXPIRING, now, list(thresholds), limit)]
    return [_certificate(row) for row in await tx.db.fetch(BY_IDS, ids)]


async def crl_marker(tx: Tx, authority_id: int) -> str:
    """Changes when one of the authority's certificates is revoked, held or released."""
    marker: str = await tx.db.fetchval(CRL_MARKER, authority_id)
    return marker


async def crl_entries(tx: Tx, authority_id: int, since: datetime) -> list[CrlEntry]:
    """Everything held or revoked that had not expired by `since`."""
    rows = await tx.db.fetch(CRL_ENTRIES, authority_id, since)
    return [
        CrlEntry(row["serial"], row["revoked_at"], Revocation(row["reason"]) if row["reason"] else None) for row in rows
    ]
