"""The cache of what logins with certificates are judged by: whose a certificate is, and whether it is good.

As `credentials`: a hit answers without a task, misses are looked up together, changes that are reported drop entries,
and while they are not reported nothing is served from here.
"""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from provisioning.model.refusal import Reason, Refusal
from provisioning.store import certificates
from provisioning.store.batch import Batcher
from provisioning.store.database import Database, Tx

TRIES: Final = 4
SEEN_AGAIN: Final = 600.0
"""Seconds until a certificate that was seen is worth writing again."""
MOST_SEEN: Final = 5_000

LOOK_UP: Final = """
    SELECT c.id, encode(c.fingerprint, 'hex') AS fingerprint, c.authority_id, c.serial, c.device_id, c.not_before,
           c.not_after, c.status = 'valid' AND a.distrusted_at IS NULL AS good
    FROM certificate c JOIN authority a ON a.id = c.authority_id
    WHERE c.fingerprint = ANY($1)
"""
BAD: Final = """
    SELECT w.authority_id, w.serial FROM unnest($1::bigint[], $2::text[]) w (authority_id, serial)
    LEFT JOIN certificate c ON c.authority_id = w.authority_id AND c.serial = w.serial
    LEFT JOIN authority a ON a.id = c.authority_id
    WHERE c.status IS DISTINCT FROM 'valid' OR a.distrusted_at IS NOT NULL
"""


@dataclass(frozen=True, slots=True)
class Holding:
    """A certificate, as far as a login asks."""

    id: int
    fingerprint: str
    authority_id: int
    serial: str
    device_id: int | None
    not_before: datetime
    not_after: datetime
    good: bool
    """Neither revoked nor on hold, and its authority is trusted."""

    @property
    def key(self) -> tuple[int, str]:
        return self.authority_id, self.serial


async def look_up(tx: Tx, fingerprints: Sequence[str]) -> list[Holding | None]:
    """The certificates with these fingerprints (SHA-256, hexadecimal), in their order; None: not in the inventory."""
    rows = await tx.db.fetch(LOOK_UP, [bytes.fromhex(each) for each in fingerprints])
    found = {row["fingerprint"]: Holding(**row) for row in rows}
    return [found.get(each) for each in fingerprints]


async def bad(tx: Tx, keys: Sequence[tuple[int, str]]) -> set[tuple[int, str]]:
    """Those of the certificates (authority id, serial) that no session may stand on."""
    rows = await tx.db.fetch(BAD, *zip(*keys, strict=True)) if keys else []
    return {(row["authority_id"], row["serial"]) for row in rows}


class Holdings:
    """Certificates by fingerprint; `size` bounds them."""

    def __init__(self, database: Database, *, size: int) -> None:
        self._database = database
        self._size = size
        self._known: OrderedDict[str, Holding] = OrderedDict()
        self._by_key: dict[tuple[int, str], str] = {}
        self._generation = 0
        self._serving = False
        self._batcher: Batcher[str, Holding | None] = Batcher(self._fetch)
        self._seen: dict[int, datetime] = {}
        self._written: OrderedDict[int, float] = OrderedDict()

    def get(self, fingerprint: str) -> Holding | None:
        """None: `look_up`."""
        return self._known.get(fingerprint) if self._serving else None

    async def look_up(self, fingerprint: str) -> Holding | None:
        """None: the certificate is not in the inventory.

        Raises:
            Refusal: UNAVAILABLE when the database is away.
        """
        for _ in range(TRIES):
            generation = self._generation
            holding = await self._batcher.submit(fingerprint)
            if generation == self._generation:
                self._keep(holding)
                return holding
        raise Refusal(Reason.UNAVAILABLE, error="the certificates change faster than they can be read")

    def _keep(self, holding: Holding | None) -> None:
        if holding is None or not self._serving:  # what is not there may come, and nobody would report it
            return
        self._known[holding.fingerprint] = holding
        self._by_key[holding.key] = holding.fingerprint
        if len(self._known) > self._size:
            _, dropped = self._known.popitem(last=False)
            self._by_key.pop(dropped.key, None)

    async def _fetch(self, fingerprints: Sequence[str]) -> list[Holding | None]:
        async with self._database.read() as tx:
            return await look_up(tx, fingerprints)

    def forget(self, key: tuple[int, str]) -> None:
        self._generation += 1
        if fingerprint := self._by_key.pop(key, None):
            self._known.pop(fingerprint, None)

    def forget_all(self) -> None:
        self._generation += 1
        self._known.clear()
        self._by_key.clear()

    def serve(self) -> None:
        self.forget_all()
        self._serving = True

    def suspend(self) -> None:
        self.forget_all()
        self._serving = False

    def seen(self, holding: Holding, now: float) -> None:
        """A device has proven at `now` (s, monotonic) that it has the key. `flush` writes it, not for each login."""
        if now - self._written.get(holding.id, -SEEN_AGAIN) >= SEEN_AGAIN:
            self._written[holding.id] = now
            self._written.move_to_end(holding.id)
            self._seen[holding.id] = datetime.now(UTC)
            if len(self._written) > self._size:
                self._written.popitem(last=False)

    async def flush(self) -> bool:
        """Write what was seen. Was there anything?

        Raises:
            Refusal: UNAVAILABLE; what was not written is kept.
        """
        any_seen = bool(self._seen)
        while part := dict(list(self._seen.items())[:MOST_SEEN]):
            async with self._database.begin() as tx:
                await certificates.note_seen(tx, part)
            for certificate_id, at in part.items():
                if self._seen.get(certificate_id) is at:
                    del self._seen[certificate_id]
        return any_seen

    async def close(self) -> None:
        await self._batcher.close(5)
