"""Keys and secrets, as the vendors' own look (EnOS reference, section 6)."""

import secrets
import string
from typing import Final

ALPHANUMERIC: Final = string.ascii_letters + string.digits


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
