"""What the account is told about its devices: notifications that it can look up, events that its webhooks get.

Both are written in the transaction of the change that they tell.
"""

import json
from datetime import datetime
from enum import StrEnum

from provisioning.model.module import Module
from provisioning.protocols.ublox import wire
from provisioning.store import notices, webhooks
from provisioning.store.database import Tx


class Notification(StrEnum):
    """Types of notifications: section 4.5."""

    STATE_CHANGE = "DEVICE_STATE_CHANGE"
    INFO_CHANGE = "DEVICE_INFO_CHANGE"
    PROPERTIES_CHANGE = "DEVICE_PROPERTIES_CHANGE"
    ERROR = "DEVICE_ERROR"


class Event(StrEnum):
    """Types of webhook events: section 6."""

    BOOTSTRAP = "DEVICE_BOOTSTRAP_EVENT"
    PROPERTIES_CHANGE = "DEVICE_PROPERTIES_CHANGE_EVENT"
    ERRORS = "DEVICE_ERRORS_EVENT"
    CERTIFICATE_RENEWAL = "DEVICE_CERTIFICATE_RENEWAL_EVENT"
    CERTIFICATE_EXPIRATION = "DEVICE_CERTIFICATE_EXPIRATION_EVENT"
    ROOTCA_EXPIRATION = "ROOTCA_EXPIRATION_EVENT"


async def notify(tx: Tx, module: Module, kind: Notification, payload: wire.Json, *, now: datetime) -> None:
    """Keep a notification about the module."""
    await notices.add_notification(tx, module.id, kind, payload, now)


async def announce(tx: Tx, module: Module, event: Event, payload: wire.Json, *, now: datetime) -> None:
    """Hand an event about the module to the webhooks that want it."""
    await _enqueue(tx, module.account_id, event, module.uid, payload, now=now)


async def announce_of_account(
    tx: Tx, account_id: int, subject: str, event: Event, payload: wire.Json, *, now: datetime
) -> None:
    """As `announce`, about something that is no device: the body has no ROTPublicUID. `subject` keeps them in order."""
    await _enqueue(tx, account_id, event, subject, payload, now=now, of_device=False)


async def _enqueue(
    tx: Tx, account_id: int, event: Event, subject: str, payload: wire.Json, *, now: datetime, of_device: bool = True
) -> None:
    about = {"ROTPublicUID": subject} if of_device else {}
    body = {**about, "Timestamp": wire.write_time(now), "EventType": event, "Payload": payload}
    await webhooks.enqueue(tx, account_id, kind=event, subject=subject, body=json.dumps(body), now=now)
