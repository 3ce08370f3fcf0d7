"""Devices that belong to somebody: claimed by an account, in a cloud. What a device tells of itself, and its tokens."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from provisioning.model.events import Event
from provisioning.model.registry import Device
from provisioning.model.spec import DeviceSpec


class CloudType(StrEnum):
    HOSTED = "hosted"
    """Shared with others."""
    DEDICATED = "dedicated"
    """The account's own: its devices may have credentials for it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """Whose the device is, and where it works."""

    account: str
    cloud_type: CloudType
    cloud_name: str
    cloud_region: str
    claimed_at: datetime | None = None
    asked_at: datetime | None = None
    """Since when the device, which has a token, asks for another one and waits for an administrator."""
    confirmed: bool = False
    """An administrator has allowed it: its next request is granted."""

    def is_same(self, other: "Claim") -> bool:
        """Do both state the same?"""
        mine = (self.account, self.cloud_type, self.cloud_name, self.cloud_region)
        return mine == (other.account, other.cloud_type, other.cloud_name, other.cloud_region)


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What a device has told of itself."""

    body: Mapping[str, Any] = field(default_factory=dict)
    """All of its last registration."""
    fields: Mapping[str, Any] = field(default_factory=dict)
    """All of its last check for an update."""
    test: bool = False
    """It is a test device."""
    version: str | None = None
    accessed_at: datetime | None = None
    """When it last came, give or take a minute."""
    checked_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimableSpec(DeviceSpec):
    """A device by its key alone, which is unique in its protocol; stated with an account, it is claimed."""

    account: str | None = None
    cloud_type: CloudType | None = None
    cloud_name: str | None = None
    cloud_region: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimedDevice(Device):
    """A device with its claim."""

    claim: Claim


class TokenEnd(StrEnum):
    """Why a token is no longer good."""

    REPLACED = "replaced"
    """The device uses a newer one."""
    RELEASED = "released"
    DELETED = "deleted"
    """The device is gone; the token stays, so that its holder can be told."""


class DeviceClaimed(Event):
    kind = "device.claimed"


class DeviceReleased(Event):
    kind = "device.released"


class TokenIssued(Event):
    """A claimed device got its first token since it was claimed."""

    kind = "device.token_issued"


class DeviceReregistered(Event):
    """A claimed device, which has a token, got another one: for an audit, as an id and the product's token suffice."""

    kind = "device.reregistered"


class ReregistrationAsked(Event):
    """A claimed device, which uses a token, asks for another one; it waits for an administrator."""

    kind = "device.reregistration_asked"
