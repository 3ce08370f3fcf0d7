"""What a device is told to do."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Command:
    """Told with each answer until the device has said what became of it."""

    id: int
    kind: str
    body: Mapping[str, object] = field(repr=False)
