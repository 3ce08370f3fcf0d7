"""Refusals as clients read them: a status and a sentence of the vendor's. Pure. Contract: section 1.2."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from provisioning.model.refusal import Reason, Refusal


@dataclass(frozen=True, slots=True)
class Row:
    status: int
    """Of the vendor's list 200, 400, 401, 404, and 409, 413, 415, 429, 500."""
    message: str


BAD_REQUEST: Final = Row(400, "Bad Request")
NOT_AUTHORIZED: Final = Row(401, "Not Authorized.")
NOT_FOUND: Final = Row(404, "Not Found")
TOO_MANY: Final = Row(429, "Too Many Requests")
FAILED: Final = Row(500, "Internal Server Error")

REFUSALS: Final[Mapping[Reason, Row]] = MappingProxyType({
    Reason.MALFORMED: BAD_REQUEST,
    Reason.MISSING: BAD_REQUEST,
    Reason.UNSUPPORTED_VERSION: BAD_REQUEST,
    Reason.UNSUPPORTED_MEDIA_TYPE: Row(415, "Unsupported Media Type"),
    Reason.TOO_LARGE: Row(413, "Payload Too Large"),
    Reason.UNKNOWN: NOT_FOUND,
    Reason.DEVICE_UNKNOWN: BAD_REQUEST,
    Reason.NOT_PROVEN: NOT_AUTHORIZED,
    Reason.STALE: NOT_AUTHORIZED,
    Reason.NOT_ALLOCATED: BAD_REQUEST,
    Reason.DUPLICATE: Row(409, "Bad Request. {field} already exists"),
    Reason.DISABLED: NOT_AUTHORIZED,
    Reason.ACTIVATION_OFF: BAD_REQUEST,
    Reason.ACTIVATION_SPENT: BAD_REQUEST,
    Reason.UNSUPPORTED: NOT_AUTHORIZED,
    Reason.CERTIFICATE_REQUIRED: NOT_AUTHORIZED,
    Reason.LIMIT_REACHED: BAD_REQUEST,
    Reason.RATE_LIMITED: TOO_MANY,
    Reason.BLOCKED: TOO_MANY,
    Reason.KICKED: FAILED,
    Reason.ILLEGAL_TRANSITION: BAD_REQUEST,
    Reason.IN_USE: BAD_REQUEST,
    Reason.UNAVAILABLE: FAILED,
    Reason.INTERNAL: FAILED,
})  # fmt: skip

WITH_FIELD: Final = frozenset({Reason.MALFORMED, Reason.DEVICE_UNKNOWN})
"""Reasons whose detail `field` names a field of the request that is to blame."""
BEFORE_THE_OPERATION: Final = frozenset({401, 413, 415, 429, 500})
"""Statuses whose key is `message` even where an operation calls it `Message`."""


def write_error(refusal: Refusal) -> Row:
    """Detail `message`: the sentence itself, where an operation has one of its own."""
    row = REFUSALS[refusal.reason]
    if isinstance(own := refusal.detail.get("message"), str):
        return Row(row.status, own)
    field = refusal.detail.get("field")
    if refusal.reason in WITH_FIELD and field not in {None, "body"}:
        return Row(row.status, f"{row.message}. Invalid {field}")
    return Row(row.status, row.message.format(field=field))


def write_body(status: int, message: str, *, marked: bool) -> dict[str, str]:
    """`marked`: the operation's key is `Message`."""
    return {"Message" if marked and status not in BEFORE_THE_OPERATION else "message": message}


def invalid(field: str) -> Refusal:
    """A value of `field` does not fit."""
    return Refusal(Reason.MALFORMED, field=field)


def unknown_device(field: str) -> Refusal:
    """`field` names a device that is not the account's: one answer, whether another account has it or nobody."""
    return Refusal(Reason.DEVICE_UNKNOWN, field=field)
