"""Messages per second, counted in windows of a second: two numbers of whoever is limited, and no object."""

from typing import Final

WINDOW: Final = 1.0


def count(began: float, taken: int, now: float) -> tuple[float, int]:
    """One more message at `now` (s): when its window began, and how many messages that has with it."""
    return (now, 1) if now - began >= WINDOW else (began, taken + 1)


def wait(began: float, taken: int, limit: int, now: float) -> float:
    """Seconds until the next message may go; 0: at once. `limit` messages fit into a window."""
    return max(began + WINDOW - now, 0.0) if taken >= limit else 0.0
