"""What all of EnOS has on the wire: signatures and fields. No I/O, no clock, no storage.

Contract: the vendor's pages, and what its own clients send, where they differ from them: each time marked.
"""

import hashlib
import re
from collections.abc import Callable, Mapping
from functools import cache
from hmac import compare_digest
from typing import Any, Final
from zoneinfo import available_timezones

from provisioning.model.refusal import Reason, Refusal

PROTOCOL: Final = "enos"

# --- Signatures ------------------------------------------------------------------------------------------------------

# The vendor's page knows sha256 alone. "hmac…" are the names that SDKs give to the same plain digests: none is an HMAC.
DIGESTS: Final[Mapping[str, Callable[[bytes], Any]]] = {
    "sha256": hashlib.sha256,
    "hmacsha256": hashlib.sha256,
    "sha1": hashlib.sha1,
    "hmacsha1": hashlib.sha1,
    "md5": hashlib.md5,
    "hmacmd5": hashlib.md5,
}


def sign(method: str, secret: str, **params: str) -> str:
    """Lower-case hex digest of every name and value, sorted by name, and then the secret.

    One recipe for MQTT passwords, DPS signatures, HTTP logins and sub-devices; they differ in the names only.
    """
    text = "".join(f"{name}{params[name]}" for name in sorted(params))
    digest: str = DIGESTS[method](f"{text}{secret}".encode()).hexdigest()
    return digest


def same_digest(given: bytes, expected: str) -> bool:
    """In constant time. Case is the client's affair: the page says upper, most clients send lower."""
    return compare_digest(given.lower(), expected.encode())


# --- Fields ----------------------------------------------------------------------------------------------------------

KEY: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}")
SERIAL: Final = re.compile(r"[A-Za-z0-9:_.-]{1,64}")
GROUP_ID: Final = re.compile(r"[^\x00-\x1f\x7f\ud800-\udfff]{1,64}")
TEXT: Final = re.compile(r"[^\x00\ud800-\udfff]{1,64}")
STORABLE: Final = re.compile(r"[^\x00\ud800-\udfff]*")
HEX_SHA256: Final = re.compile(r"[0-9A-Fa-f]{64}")
MILLISECONDS: Final = re.compile(r"[0-9]{13}")
FIRST_MOMENT, LAST_MOMENT = 10**12, 10**13 - 1
LOCALE: Final = re.compile(r"[A-Za-z]{2,3}([_-][A-Za-z0-9]{2,8}){0,3}")
OFFSET: Final = re.compile(r"[+-](0[0-9]|1[0-4]):[0-5][0-9]")
MOST_LOCALES: Final = 16


def malformed(name: str) -> Refusal:
    return Refusal(Reason.MALFORMED, field=name)


def read_object(value: object, name: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise malformed(name)
    return value


def read_text(fields: Mapping[str, Any], name: str, form: re.Pattern[str]) -> str:
    value = fields.get(name)
    if not isinstance(value, str) or not form.fullmatch(value):
        raise malformed(name)
    return value


def read_timestamp(fields: Mapping[str, Any], name: str) -> str:
    """Thirteen digits, as number or text: with any other length, serial number and timestamp could trade digits."""
    value = fields.get(name)
    if isinstance(value, int) and FIRST_MOMENT <= value <= LAST_MOMENT:
        return str(value)
    return read_text(fields, name, MILLISECONDS)


@cache
def _zones() -> frozenset[str]:
    return frozenset(available_timezones())


def is_timezone(value: str) -> bool:
    """`+08:00` or an IANA name."""
    return bool(OFFSET.fullmatch(value)) or value in _zones()


def read_name(value: object, name: str) -> tuple[str, dict[str, str]]:
    """A StringI18n: `{"defaultValue": …, "i18nValue": {locale: …}}`; a plain string stands for its default."""
    if isinstance(value, str):
        value = {"defaultValue": value}
    fields = read_object(value, name)
    try:
        default = read_text(fields, "defaultValue", TEXT)
    except Refusal:
        raise malformed(name) from None
    local = fields.get("i18nValue")
    if local is None:
        return default, {}
    if not isinstance(local, dict) or len(local) > MOST_LOCALES:
        raise malformed(name)
    for locale, text in local.items():
        if not (LOCALE.fullmatch(locale) and isinstance(text, str) and TEXT.fullmatch(text)):
            raise malformed(name)
    return default, dict(local)
