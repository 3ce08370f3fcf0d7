"""Root CAs: the authorities of an account, and what is ordered for the certificates that they issue."""

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from provisioning.model.certificate import Certificate
from provisioning.model.module import Module


@dataclass(frozen=True, slots=True, kw_only=True)
class Root:
    id: int
    account_id: int
    name: str
    authority_id: int
    ca_days: int
    device_days: int
    renew_before: int | None
    """Days before expiry at which certificates of modules are renewed; None: that is left to the application."""
    created_at: datetime
    deleted_at: datetime | None = None
    """Since when it is gone for the account. What it issued still names it."""
    certificate: bytes = field(repr=False)
    """DER."""
    not_after: datetime
    managed: bool
    """Its account may manage certificates."""

    def may_issue(self, now: datetime) -> bool:
        return self.deleted_at is None and now < self.not_after


class Standing(StrEnum):
    """How a module's certificate is doing."""

    VALID = "valid"
    PENDING = "pending"
    """On its way to the module, or removed so that another one can take its place."""
    REVOKED = "revoked"


@dataclass(frozen=True, slots=True)
class Provisioned:
    """A module that has a certificate of a root CA."""

    uid: str
    serial: str
    """As `Certificate.serial`."""
    not_after: datetime
    standing: Standing


class OrderKind(StrEnum):
    RENEW = "renew"
    """The same key under a new serial number."""
    UPDATE = "update"
    """A new key: one heartbeat removes the certificate, the next one installs another."""
    DELETE = "delete"
    """Remove it. The order stays: nothing is issued until the module is provisioned anew."""
    TRANSFER = "transfer"
    """The same key, by another root CA."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What an application wants of a module's certificate; its heartbeats carry it out."""

    device_id: int
    kind: OrderKind
    root_ca_id: int
    """Whose certificate it will have; of a deletion: has."""
    days: int | None = None
    """Of a renewal: how long the new one is valid."""
    removed: bool = False
    """The certificate is removed: an update waits for its second heartbeat, a deletion is done."""
    ordered_at: datetime


@dataclass(frozen=True, slots=True)
class Expiring:
    """A module whose certificate has reached one more threshold before its expiry."""

    module: Module
    certificate: Certificate
    root_name: str
