"""An update of a product's software, its image, and what a device is offered of it."""

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class Image:
    """The content of a file, addressed by what it is."""

    checksum: str
    """SHA-256 in lower-case hex."""
    size: int
    """Bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Update:
    """A version of a product's software, and who gets it how fast."""

    protocol: str
    product: str
    """Key of the product."""
    version: str
    """SemVer 2.0.0, without a leading v."""
    checksum: str
    size: int
    file: str
    """Name of the image in links: letters, digits, dot, hyphen and underscore."""
    policy: str = ""
    """Expression over what the device submits (`core/policy`); empty: every device."""
    percentage: int = 100
    """Of the devices, chosen by `core/updates.bucket`."""
    max_devices: int | None = None
    rate: int | None = None
    """Devices that are offered it for the first time within any `rate_period` seconds."""
    rate_period: int = 3_600
    test: bool = False
    """For test devices only."""
    stopped_at: datetime | None = None
    why_stopped: str = ""
    offered: int = 0
    """Devices that were offered it."""
    succeeded: int = 0
    """Of those, how many reported success last."""
    failed: int = 0
    id: int = 0
    created_at: datetime | None = None

    @property
    def name(self) -> str:
        """What devices and people call it: `upd1`."""
        return f"upd{self.id}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """What a device that should update is told."""

    checksum: str
    version: str
    update_id: str
    """Name of the update: `upd1`."""
    file: str
    size: int
