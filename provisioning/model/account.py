"""Tenants: accounts that share the installation and see nothing of each other."""

from dataclasses import dataclass, field
from datetime import datetime

from provisioning.model.events import Event
from provisioning.model.registry import Device, Group, Product
from provisioning.model.spec import DeviceSpec, GroupSpec, ProductSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """Applications act for it with its key and secret. It is a product, whose devices are its modules."""

    id: int
    key: str
    generation: int = 1
    """Counts the secrets that it has had: what was given for an earlier one is not accepted."""
    strict_e2e: bool = False
    certificates: bool = True
    """It may manage the certificates of its devices."""
    name: str = ""
    created_at: datetime | None = None
    devices: int = 0
    """How many it has; filled in by listings."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountProduct(Product):
    """The account as the registry exports it."""

    secret_hash: bytes = field(repr=False)
    strict_e2e: bool
    certificates: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfileGroup(Group):
    """The device profile as the registry exports it."""

    whitelist_check: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ModuleDevice(Device):
    """The module as the registry exports it."""

    device_serial: str
    """From the production log. Empty: none is known."""
    imei: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountSpec(ProductSpec):
    """`secret`: the API secret in plain; or `secret_hash`, its SHA-256."""

    secret_hash: bytes | None = field(default=None, repr=False)
    strict_e2e: bool | None = None
    certificates: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfileSpec(GroupSpec):
    """A device profile: a group of the account that `product` names."""

    whitelist_check: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ModuleSpec(DeviceSpec):
    """A module of the account that `product` names, by its uid (`key`); `secret` is the root secret, 64 hex digits."""

    device_serial: str | None = None
    """From the production log."""
    imei: str | None = None


class AccountCreated(Event):
    kind = "account.created"


class AccountRotated(Event):
    """It has a new secret."""

    kind = "account.rotated"


class AccountDeleted(Event):
    kind = "account.deleted"
