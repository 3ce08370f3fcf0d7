"""Refusals as agents read them: a status of the vendor's list and plain text. Pure.

On checkin two of the texts make an agent erase its certificates and register again: what leads to them is all here.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from provisioning.model.claim import TokenEnd
from provisioning.model.refusal import Reason, Refusal


@dataclass(frozen=True, slots=True)
class Row:
    status: int
    """200, 400, 403 or 500: the vendor's list."""
    text: str


ACCESS_DENIED: Final = Row(403, "Access denied")
INTERNAL: Final = Row(500, "Internal error")

REFUSALS: Final[Mapping[Reason, Row]] = MappingProxyType({
    Reason.MALFORMED: Row(400, "Invalid request"),
    Reason.MISSING: Row(400, "Invalid request"),
    Reason.UNSUPPORTED_VERSION: Row(400, "Unsupported version"),
    Reason.UNSUPPORTED_MEDIA_TYPE: Row(400, "Unsupported content encoding"),
    Reason.TOO_LARGE: Row(400, "Request too large"),
    Reason.UNKNOWN: Row(400, "Unknown device"),
    Reason.DEVICE_UNKNOWN: Row(400, "Unknown device"),
    Reason.NOT_PROVEN: ACCESS_DENIED,
    Reason.STALE: ACCESS_DENIED,
    Reason.NOT_ALLOCATED: Row(400, "Device not claimed"),
    Reason.DUPLICATE: Row(400, "Device belongs to another product"),
    Reason.DISABLED: Row(403, "Device is blocked"),
    Reason.ACTIVATION_OFF: ACCESS_DENIED,
    Reason.ACTIVATION_SPENT: ACCESS_DENIED,
    Reason.UNSUPPORTED: Row(403, "IAM credentials are not enabled"),
    Reason.CERTIFICATE_REQUIRED: ACCESS_DENIED,
    Reason.LIMIT_REACHED: ACCESS_DENIED,
    Reason.RATE_LIMITED: Row(403, "Too many requests"),
    Reason.BLOCKED: Row(403, "Too many requests"),
    Reason.KICKED: Row(400, "Try again"),
    Reason.ILLEGAL_TRANSITION: Row(400, "Device is {state}"),
    Reason.IN_USE: Row(400, "Device has changed, try again"),
    Reason.UNAVAILABLE: INTERNAL,
    Reason.INTERNAL: INTERNAL,
})  # fmt: skip

# Agents that read one of these on checkin erase their certificates and register again, whatever the status. They stand
# nowhere else, and for nothing but what is known for certain.
CANNOT_FIND_DEVICE: Final = Row(400, "Cannot find device")
AUTHENTICATION_FAILED: Final = Row(403, "Authentication failed")
TOKEN_ENDS: Final[Mapping[str, Row]] = MappingProxyType({
    TokenEnd.DELETED: CANNOT_FIND_DEVICE,
    TokenEnd.RELEASED: AUTHENTICATION_FAILED,
    TokenEnd.REPLACED: AUTHENTICATION_FAILED,
})  # fmt: skip


def write_error(refusal: Refusal) -> Row:
    """Status and text, on every call but register and checkin."""
    reason, detail = refusal.reason, refusal.detail
    if "authority" in detail:  # ours cannot issue: nothing that a device could mend
        return INTERNAL
    if reason is Reason.NOT_PROVEN and detail.get("known") == TokenEnd.RELEASED:
        return REFUSALS[Reason.NOT_ALLOCATED]
    row = REFUSALS[reason]
    text = row.text
    if reason is Reason.MALFORMED:
        text = str(detail.get("text", text))
    elif reason is Reason.UNKNOWN:
        text = next((f"Unknown {each}" for each in ("update", "product") if each in detail), text)
    elif reason is Reason.ILLEGAL_TRANSITION:
        text = text.format(state=detail.get("state", "in another state"))
    return Row(row.status, text)


def write_register_error(refusal: Refusal) -> Row:
    """A product token proves here, no device token."""
    return Row(403, "Invalid product token") if refusal.reason is Reason.NOT_PROVEN else write_error(refusal)


def write_checkin_error(refusal: Refusal) -> Row:
    """The one call on which the reserved texts stand."""
    if refusal.reason is Reason.NOT_PROVEN:
        return TOKEN_ENDS.get(str(refusal.detail.get("known", "")), ACCESS_DENIED)
    if refusal.reason is Reason.NOT_ALLOCATED:  # its token is good, and no claim is there
        return CANNOT_FIND_DEVICE
    return write_error(refusal)


def write_credentials_error(refusal: Refusal) -> Row:
    """What is wrong with the cloud is for people to read: the agent asks again."""
    if refusal.reason is Reason.UNAVAILABLE and "aws" in refusal.detail:
        return Row(500, str(refusal.detail["aws"]))
    return write_error(refusal)
