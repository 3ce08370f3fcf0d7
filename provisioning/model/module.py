"""A module: a device of an account, with its root of trust, what it has sealed and what it is provisioned with."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

Properties = Mapping[str, tuple[str | int, datetime]]
"""What a module is provisioned with, by name: the value, and since when it is wanted (desired) or known to be so
(current)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Module:
    id: int
    """Of its device."""
    account_id: int
    account: str
    """Its key."""
    uid: str
    """Of its root of trust: 16 hex digits, lower case."""
    activated: bool
    """It has bootstrapped and stood on the whitelist, or its profile does not ask for that."""
    disabled: bool
    profile: str | None = None
    """Uid of the device profile that is sealed into it; None: none yet."""
    profile_id: int | None = None
    sealed_at: datetime | None = None
    whitelisted: bool = False
    """It stands on the whitelist now, by uid or by IMEI."""
    blacklisted: bool = False
    """It has bootstrapped without leave."""
    bootstrapped_at: datetime | None = None
    signed_at: datetime | None = None
    """By the module's own clock: its last bootstrap."""
    bootstrap_mac: str | None = None
    """Of its last bootstrap: what repeats it has the same."""
    imei: str | None = None
    device_serial: str | None = None
    production_serial: str | None = None
    """As `device_serial`, from the production log: known before it bootstraps."""
    serial: str | None = None
    type_number: str | None = None
    rot_version: str | None = None
    version: str | None = None
    counter: int = 0
    """Of its last heartbeat."""
    last_seen: datetime | None = None
    due_at: datetime | None = None
    """When it counts as unreachable."""
    desired: Properties = field(default_factory=dict)
    current: Properties = field(default_factory=dict)
    desired_ca: int | None = None
    """Id of the root CA in `desired`."""
    current_ca: int | None = None
    certificate_id: int | None = None
    """Of the certificate that is installed, or on its way."""
    issuer_id: int | None = None
    """Of the root CA that issued it."""
    secret: str = field(default="", repr=False)
    """Root secret, 64 hex digits; filled in where it was asked for."""
