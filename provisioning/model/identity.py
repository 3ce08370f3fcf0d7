"""Who a device is."""

from typing import NamedTuple


class Identity(NamedTuple):
    """A device by the names that its vendor gave it. It keys sessions, caches and logs: a tuple is quick to look up."""

    protocol: str
    product: str
    device: str

    def __str__(self) -> str:
        return f"{self.protocol}/{self.product}/{self.device}"
