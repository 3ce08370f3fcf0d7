"""What Tencent's registration answers: payload or error, in the shapes that its clients read. Pure.

Contract: "Dynamic Registration API Description", Platform response parameters; codes where the vendor has none of its
own are Gatehouse's choice.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from provisioning.model.refusal import Reason, Refusal
from provisioning.protocols.tencent.payload import Payload

LARGEST_ANSWER: Final = 5 * 1024 - 1
"""Bytes that the C SDK has room for."""
LARGEST_LEGACY_ANSWER: Final = 255
"""Bytes that the older C firmware has room for."""


def write_answer(payload: Payload, request_id: str) -> dict[str, object]:
    return {"Response": {"Len": payload.length, "Payload": payload.text, "RequestId": request_id}}


def write_legacy_answer(payload: Payload) -> dict[str, object]:
    return {"code": 0, "message": "", "len": payload.length, "payload": payload.text}


def compact(answer: Mapping[str, object]) -> str:
    return json.dumps(answer, separators=(",", ":"))


@dataclass(frozen=True, slots=True)
class Row:
    code: int
    name: str
    words: str
    rest: int
    """HTTP status where errors have one of their own."""


SIGNATURE: Final = Row(1010, "AuthFailure.SignatureFailure", "Check signature failed", 401)
INVALID: Final = Row(1002, "InvalidParameterValue", "{field} is invalid", 400)
NO_DEVICE: Final = Row(1005, "ResourceNotFound.DeviceNotExist", "Device does not exist", 404)
TOO_MANY: Final = Row(1009, "RequestLimitExceeded", "Too many requests", 429)
INTERNAL: Final = Row(1500, "InternalError", "Internal error", 500)

REFUSALS: Final[Mapping[Reason, Row]] = {
    Reason.MALFORMED: INVALID,
    Reason.MISSING: Row(1001, "MissingParameter", "{field} is missing", 400),
    Reason.UNSUPPORTED_VERSION: INVALID,
    Reason.UNSUPPORTED_MEDIA_TYPE: INVALID,
    Reason.TOO_LARGE: INVALID,
    Reason.UNKNOWN: Row(1003, "NoSuchProduct", "Product does not exist", 404),
    Reason.DEVICE_UNKNOWN: NO_DEVICE,
    Reason.NOT_PROVEN: SIGNATURE,
    Reason.STALE: Row(1011, "AuthFailure.SignatureExpire", "Signature expired", 401),
    Reason.NOT_ALLOCATED: NO_DEVICE,
    Reason.DUPLICATE: INTERNAL,
    Reason.DISABLED: Row(1008, "UnsupportedOperation.DeviceDisabled", "Device is disabled", 403),
    Reason.ACTIVATION_OFF: Row(
        1004, "FailedOperation.DynamicRegisterDisabled", "Dynamic registration is not enabled", 403
    ),
    Reason.ACTIVATION_SPENT: Row(1007, "ResourceInUse.DeviceActivated", "Device already activated", 409),
    Reason.UNSUPPORTED: INVALID,
    Reason.CERTIFICATE_REQUIRED: INVALID,
    Reason.LIMIT_REACHED: Row(1006, "LimitExceeded", "Registration limit reached", 403),
    Reason.RATE_LIMITED: TOO_MANY,
    Reason.BLOCKED: TOO_MANY,
    Reason.KICKED: INTERNAL,
    Reason.ILLEGAL_TRANSITION: INTERNAL,
    Reason.IN_USE: INTERNAL,
    Reason.UNAVAILABLE: Row(INTERNAL.code, INTERNAL.name, INTERNAL.words, 503),
    Reason.INTERNAL: INTERNAL,
}


def _row(refusal: Refusal) -> tuple[Row, str]:
    row = REFUSALS[refusal.reason]
    return row, row.words.format_map({"field": refusal.detail.get("field", "body")})


def write_error(refusal: Refusal, request_id: str) -> tuple[int, dict[str, object]]:
    """HTTP status and body, one for all clients: the Python SDK reads `Response.Error.Message`, older ones `code`.

    It has no `Payload`, and no `Len` above 0: that is how clients tell success.
    """
    row, words = _row(refusal)
    error = {"Code": row.name, "Message": words}
    return row.rest, {
        "code": row.code, "message": words, "Response": {"Len": 0, "Error": error, "RequestId": request_id},
    }  # fmt: skip


def write_legacy_error(refusal: Refusal) -> tuple[int, dict[str, object]]:
    """As `write_error`, in less than 256 bytes."""
    row, words = _row(refusal)
    return row.rest, {"code": row.code, "message": words, "len": 0}
