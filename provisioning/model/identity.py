"""Who a device is."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, order=True)
class Identity:
    """A device by the names that its vendor gave it. It keys sessions, caches and logs."""

    protocol: str
    product: str
    device: str

    def __str__(self) -> str:
        return f"{self.protocol}/{self.product}/{self.device}"
