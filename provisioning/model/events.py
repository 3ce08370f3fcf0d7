"""What has happened. Every change of state writes one of these in its own transaction; the outbox hands them on."""

from dataclasses import dataclass
from typing import ClassVar

from provisioning.model.identity import Identity


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """A fact about one device. `kind` is its name in the event table and in the log."""

    kind: ClassVar[str]
    device_id: int
    identity: Identity
    """`product` and `device` are empty as long as the device is not allocated."""
    serial: str = ""


class DeviceRegistered(Event):
    kind = "device.registered"


class DeviceAllocated(Event):
    kind = "device.allocated"


class SecretIssued(Event):
    """A dynamic activation or a registration handed the device its secret, or is about to."""

    kind = "device.secret_issued"


class DeviceActivated(Event):
    """The device logged in with its own secret for the first time."""

    kind = "device.activated"


class DeviceDisabled(Event):
    kind = "device.disabled"


class DeviceEnabled(Event):
    kind = "device.enabled"


class DeviceReset(Event):
    kind = "device.reset"


class DeviceDeleted(Event):
    kind = "device.deleted"


class DeviceBound(Event):
    """A gateway speaks for the device from now on."""

    kind = "device.bound"


class DeviceUnbound(Event):
    kind = "device.unbound"


@dataclass(frozen=True, kw_only=True)  # with slots there would be two classes of this kind
class UpdateStopped(Event):
    """An update failed too often; this is the device whose report was one too many."""

    kind = "update.stopped"
    update: str
    why: str
