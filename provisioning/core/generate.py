"""Keys and secrets. What a vendor's own look like, its `Forms` say; HOUSE is what most of them take."""

import base64
import secrets
import string
import time
from typing import Final

from provisioning.model.spec import Forms

ALPHANUMERIC: Final = string.ascii_letters + string.digits
CROCKFORD: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


def alphanumeric(length: int, alphabet: str = ALPHANUMERIC) -> str:
    """Random characters, each as likely as any other. The alphabet has at most 256."""
    fair = 256 - 256 % len(alphabet)  # bytes from here on would favour the first ones
    text = ""
    while len(text) < length:
        # One draw for all: `secrets.choice` asks the system for each character.
        text += "".join(alphabet[byte % len(alphabet)] for byte in secrets.token_bytes(2 * length) if byte < fair)
    return text[:length]


def base64_key(length: int) -> str:
    """So many random bytes, in Base64."""
    return base64.b64encode(secrets.token_bytes(length)).decode()


def secret() -> str:
    """32 URL-safe characters, 192 random bits."""
    return secrets.token_urlsafe(24)


def product_key() -> str:
    return alphanumeric(8)


def device_key() -> str:
    return alphanumeric(10)


def asset_id() -> str:
    return alphanumeric(8)


def ulid() -> str:
    """26 characters of Crockford's base 32: 48 bits of time in ms, then 80 random ones; a later one sorts behind."""
    number = (time.time_ns() // 1_000_000) << 80 | secrets.randbits(80)
    return "".join(CROCKFORD[number >> 5 * place & 31] for place in reversed(range(26)))


HOUSE: Final = Forms(
    product_key=product_key, product_secret=secret, device_key=device_key, device_secret=secret, asset_id=asset_id
)
"""As the EnOS reference has them, section 6."""
