"""What accounts are told before device certificates and root CAs expire. Contract: section 6."""

from datetime import datetime

from provisioning.core import roots
from provisioning.protocols.ublox import notices, wire
from provisioning.protocols.ublox.notices import Event
from provisioning.store import lists
from provisioning.store.database import Tx
from provisioning.store.lists import List


async def warn_of_certificates(tx: Tx, *, now: datetime, limit: int) -> int:
    """60, 30 and 7 days before a device certificate expires. Returns how many were looked at: call again at `limit`."""
    found, looked_at = await roots.take_expiring(tx, now=now, limit=limit)
    for each in found:
        payload = {
            "CertificateAuthorityName": each.root_name, "CertificateSerialNumber": each.certificate.serial,
            "DaysToExpiration": roots.days_left(each.certificate.not_after, now),
            "ExpirationDate": wire.write_time(each.certificate.not_after),
        }  # fmt: skip
        await notices.announce(tx, each.module, Event.CERTIFICATE_EXPIRATION, payload, now=now)
    return looked_at


async def warn_of_root_cas(tx: Tx, *, now: datetime, limit: int) -> int:
    """180, 90, 60, 30, 7 and 0 days before a root CA expires. Returns how many: call again at `limit`."""
    found = await roots.take_expiring_roots(tx, now=now, limit=limit)
    for each in found:
        payload = {
            "CertificateAuthorityName": each.name, "DaysToExpiration": roots.days_left(each.not_after, now),
            "ExpirationDate": wire.write_time(each.not_after),
            "ProvisionedDevicesCount": (await lists.locate(tx, List.ISSUED, each.id, 1)).total,
        }  # fmt: skip
        await notices.announce_of_account(tx, each.account_id, each.name, Event.ROOTCA_EXPIRATION, payload, now=now)
    return len(found)
