"""Keys and secrets, as the vendors' own look (EnOS reference, section 6)."""

import secrets
import string
import time
from typing import Final

ALPHANUMERIC: Final = string.ascii_letters + string.digits
CROCKFORD: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


def _alphanumeric(length: int) -> str:
    return "".join(secrets.choice(ALPHANUMERIC) for _ in range(length))


def secret() -> str:
    """32 URL-safe characters, 192 random bits."""
    return secrets.token_urlsafe(24)


def product_key() -> str:
    return _alphanumeric(8)


def device_key() -> str:
    return _alphanumeric(10)


def asset_id() -> str:
    return _alphanumeric(8)


def ulid() -> str:
    """26 characters of Crockford's base 32: 48 bits of time in ms, then 80 random ones; a later one sorts behind."""
    number = (time.time_ns() // 1_000_000) << 80 | secrets.randbits(80)
    return "".join(CROCKFORD[number >> 5 * place & 31] for place in reversed(range(26)))
