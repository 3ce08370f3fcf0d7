"""Addresses, certs-only messages and refusals of the certificate services. No I/O, no clock, no storage."""

import base64
import binascii
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, pkcs7

from provisioning.core.signing import NOWHERE, Urls
from provisioning.model.certificate import Authority
from provisioning.model.refusal import Reason, Refusal

PROTOCOL: Final = "x509"

# --- addresses -------------------------------------------------------------------------------------------------------

NAME: Final = "[a-z0-9][a-z0-9-]{0,39}"
"""Of an authority, as the constraint authority_name has it."""
AUTHORITY: Final = f"{NAME}-[1-9][0-9]{{0,8}}"
"""One generation of it: each has a key, a CRL and responses of its own."""


def write_authority(authority: Authority) -> str:
    return f"{authority.name}-{authority.generation}"


def read_authority(text: str) -> tuple[str, int]:
    """Name and generation. Raises: Refusal UNKNOWN, for what cannot be one."""
    if not re.fullmatch(AUTHORITY, text, re.ASCII):
        raise Refusal(Reason.UNKNOWN, authority=text)
    name, _, generation = text.rpartition("-")
    return name, int(generation)


def urls(base: str, authority: Authority) -> Urls:
    """Where CRL, OCSP responder and certificate of the authority are found below `base` (`http://host[:port]`).

    Plain HTTP on purpose: a client that checks the certificate of a TLS server would come here to do so (RFC 5280, 8).
    """
    if not base:
        return NOWHERE
    at = f"{base.rstrip('/')}/pki/{write_authority(authority)}"
    return Urls(crl=f"{at}/crl.der", ocsp=f"{at}/ocsp", ca=f"{at}/ca.der")


# --- messages --------------------------------------------------------------------------------------------------------


def write_certs_only(certificates: Sequence[x509.Certificate]) -> bytes:
    """A certs-only CMS message (RFC 5751, 3.8), base64 in lines (RFC 7030, 4.1.3). Each certificate once."""
    unique = list(dict.fromkeys(certificates))
    return base64.encodebytes(pkcs7.serialize_certificates(unique, Encoding.DER))


def read_basic(header: str) -> tuple[str, str] | None:
    """User and password of an `Authorization: Basic …` (RFC 7617); None: it is none, or is not well formed."""
    scheme, _, value = header.strip().partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        user, colon, password = base64.b64decode(value.strip(), validate=True).decode().partition(":")
    except (binascii.Error, ValueError):
        return None
    return (user, password) if colon else None


# --- refusals --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Row:
    status: int
    words: str


REFUSALS: Final[Mapping[Reason, Row]] = {
    Reason.MALFORMED: Row(400, "{field} {rule}"),
    Reason.MISSING: Row(400, "{field} is missing"),
    Reason.UNSUPPORTED_VERSION: Row(400, "this version is not served"),
    Reason.UNSUPPORTED_MEDIA_TYPE: Row(415, "{field} is not what this operation takes"),
    Reason.TOO_LARGE: Row(413, "the body is larger than {limit} bytes"),
    Reason.UNKNOWN: Row(404, "there is no such {what} here"),
    Reason.DEVICE_UNKNOWN: Row(404, "there is no such device here"),
    Reason.NOT_PROVEN: Row(401, "show the certificate of a device, or its user name and secret"),
    Reason.STALE: Row(401, "the proof is too old"),
    Reason.NOT_ALLOCATED: Row(403, "the device has no product yet"),
    Reason.DUPLICATE: Row(409, "{field} is taken"),
    Reason.DISABLED: Row(403, "the device is disabled"),
    Reason.ACTIVATION_OFF: Row(403, "the product does not allow it"),
    Reason.ACTIVATION_SPENT: Row(403, "the device had it already"),
    Reason.UNSUPPORTED: Row(403, "{rule}"),
    Reason.CERTIFICATE_REQUIRED: Row(403, "the certificate that was shown is {certificate}"),
    Reason.LIMIT_REACHED: Row(403, "the product has as many devices as it may"),
    Reason.RATE_LIMITED: Row(429, "too many requests: wait a moment"),
    Reason.BLOCKED: Row(429, "too many refusals: wait some minutes"),
    Reason.KICKED: Row(503, "the session was ended: come again"),
    Reason.ILLEGAL_TRANSITION: Row(409, "{what} is {state} and cannot {step}"),
    Reason.IN_USE: Row(409, "{rule}"),
    Reason.UNAVAILABLE: Row(503, "not available at this moment: try again"),
    Reason.INTERNAL: Row(500, "internal error"),
}


def write_error(refusal: Refusal) -> tuple[int, str]:
    """HTTP status and words for people."""
    row, detail = REFUSALS[refusal.reason], refusal.detail
    what = "the authority" if "authority" in detail else "the certificate"
    defaults = {
        "field": "the request", "rule": "cannot be read", "limit": "it may be", "what": what.removeprefix("the "),
        "certificate": "not accepted", "state": "in a state", "step": "do that",
    }  # fmt: skip
    if refusal.reason is Reason.ILLEGAL_TRANSITION:
        defaults["what"] = what
    if refusal.reason is Reason.IN_USE:
        defaults["rule"] = "something else has changed: try again"
    return row.status, row.words.format_map(defaults | detail) + "\n"
