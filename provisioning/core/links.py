"""Links to images: whoever holds one may fetch the image until the link expires. Pure.

    /updates/<checksum>/<file>?expires=<Unix seconds>&signature=<HMAC-SHA-256 of path and expiry, base64url>

The path holds nothing but the image's checksum and a name of plain letters: it leads to no other file.
"""

import hmac
import re
from base64 import urlsafe_b64encode
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Final

from provisioning.model.refusal import Reason, Refusal
from provisioning.model.update import Offer

PURPOSE: Final = "download links"
"""For `Sealer.derive`: the key of links."""
LIFETIME: Final = timedelta(hours=24)
CHECKSUM: Final = r"[0-9a-f]{64}"
FILE: Final = r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}"
EXPIRES: Final = re.compile(r"[0-9]{1,12}")


def path_of(checksum: str, file: str) -> str:
    return f"/updates/{checksum}/{file}"


def sign_link(base: str, key: bytes, offer: Offer, now: datetime) -> str:
    """A URL for the image of `offer`, good for LIFETIME. `base`: scheme, host and path prefix under which we serve."""
    path = path_of(offer.checksum, offer.file)
    expires = int((now + LIFETIME).timestamp())
    return f"{base.rstrip('/')}{path}?expires={expires}&signature={_signature(key, path, str(expires))}"


def check_link(key: bytes, checksum: str, file: str, *, expires: str, signature: str, now: datetime) -> None:
    """Raises: Refusal NOT_PROVEN, when we never signed this; STALE, when it has expired."""
    right = _signature(key, path_of(checksum, file), expires)
    if not hmac.compare_digest(right.encode(), signature.encode(errors="replace")) or not EXPIRES.fullmatch(expires):
        raise Refusal(Reason.NOT_PROVEN)
    if now.timestamp() >= int(expires):
        raise Refusal(Reason.STALE)


def _signature(key: bytes, path: str, expires: str) -> str:
    signed = f"{path}\n{expires}".encode(errors="replace")
    return urlsafe_b64encode(hmac.digest(key, signed, sha256)).rstrip(b"=").decode()
