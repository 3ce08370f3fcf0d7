"""CRLs in memory. A new one is made, under a new number, only when it would say something new or the old one ages."""

import asyncio
from collections import defaultdict
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from cryptography import x509

from provisioning.core import ca, publish
from provisioning.store import certificates
from provisioning.store.database import Database


@dataclass(frozen=True, slots=True)
class Crl:
    der: bytes = field(repr=False)
    marker: str
    """What the inventory looked like, or something older: then the next request makes another one."""
    number: int
    this_update: datetime
    next_update: datetime

    def is_fresh(self, now: datetime) -> bool:
        """Half of its life is left: whoever fetches it now can rely on it for a while."""
        return self.this_update <= now < self.this_update + (self.next_update - self.this_update) / 2


class Crls:
    """One CRL for each generation of each authority. Processes share nothing but the numbers, which only ever grow."""

    def __init__(self) -> None:
        self._kept: dict[int, Crl] = {}
        self._locks: defaultdict[int, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def get(self, database: Database, name: str, generation: int, *, now: datetime, validity: timedelta) -> Crl:
        """The CRL as it must be at this moment.

        Raises:
            Refusal: UNKNOWN, when there is no such authority; ILLEGAL_TRANSITION, when its key is elsewhere;
                UNAVAILABLE.
        """
        async with database.read() as tx:
            authority = await ca.find(tx, name, generation)
        async with self._locks[authority.id]:  # of many that ask at once one makes it
            async with database.read() as tx:
                marker = await certificates.crl_marker(
                    tx, authority.id
                )  # before the entries: never newer than they are
            kept = self._kept.get(authority.id)
            if kept is None or kept.marker != marker or not kept.is_fresh(now):
                async with database.begin() as tx:
                    der = await publish.make_crl(tx, authority, now=now, validity=validity)
                kept = self._kept[authority.id] = _read(der, marker)
            return kept


def _read(der: bytes, marker: str) -> Crl:
    crl = x509.load_der_x509_crl(der)
    number = crl.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number
    assert crl.next_update_utc is not None
    return Crl(der, marker, number, crl.last_update_utc, crl.next_update_utc)
