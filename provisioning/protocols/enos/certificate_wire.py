"""The X.509 service of EnOS on the wire: read, check, write. No I/O, no clock, no storage.

Contract: "Apply Certificate", "Renew Certificate", "Revoke Certificate" of the connection API, 2.1 to 2.4. Our choices:

* A serial number (`certSN` in replies, `certSn` in requests: both are read) is hexadecimal text; as a JSON number it is
  the number itself.
* `issueAuthority` says which key the certificate is for, RSA or ECC, and must fit the request's. It does not choose the
  authority: an RSA certificate by an authority whose own key is P-256 is fine.
* The organization (`orgId`) is not looked at: there is one. What stands in the query may stand in the body, too.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from uuid import uuid4

from cryptography.hazmat.primitives.asymmetric import rsa

from provisioning.core import certify, pki
from provisioning.core.chain import malformed
from provisioning.model.certificate import Authority, Certificate, Revocation
from provisioning.model.refusal import Reason, Refusal
from provisioning.protocols.enos import dps_wire, wire
from provisioning.protocols.x509.wire import urls

SUBJECT: Final = ("C", "ST", "L", "O", "OU", "CN")
LONGEST_ATTRIBUTE: Final = 64
RSA, ECC = "RSA", "ECC"

REASONS: Final[Mapping[int, Revocation | None]] = {
    0: Revocation.UNSPECIFIED,
    1: Revocation.KEY_COMPROMISE,
    3: Revocation.AFFILIATION_CHANGED,
    4: Revocation.SUPERSEDED,
    5: Revocation.CESSATION_OF_OPERATION,
    6: None,
    9: Revocation.PRIVILEGE_WITHDRAWN,
}
"""The vendor's numbers, which are those of RFC 5280, 5.3.1. None: on hold."""


# --- requests --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A device: by its asset id, by product and key, or by both."""

    asset: str = ""
    product: str = ""
    key: str = ""


@dataclass(frozen=True, slots=True)
class Apply:
    request: pki.Request
    days: int


@dataclass(frozen=True, slots=True)
class Renew:
    serial: str
    request: pki.Request | None
    """None: for the key of the certificate that is renewed."""
    days: int
    issue_authority: str
    """Empty: not stated."""


@dataclass(frozen=True, slots=True)
class Revoke:
    serial: str
    reason: Revocation | None
    """None: put it on hold."""


Action = Apply | Renew | Revoke


def read_target(fields: Mapping[str, Any]) -> Target:
    """Raises: Refusal MALFORMED."""
    found = {}
    for name in ("assetId", "productKey", "deviceKey"):
        value = fields.get(name)
        if value in (None, ""):
            continue
        if not isinstance(value, str) or not wire.KEY.fullmatch(value):
            raise malformed(name, "must be 1 to 64 of A-Z a-z 0-9 _ . -")
        found[name] = value
    if ("productKey" in found) != ("deviceKey" in found):
        raise wire.malformed("deviceKey" if "productKey" in found else "productKey")
    if not found:
        raise malformed("assetId", "is missing, and so are productKey and deviceKey: say which device")
    return Target(asset=found.get("assetId", ""), product=found.get("productKey", ""), key=found.get("deviceKey", ""))


def read_action(fields: Mapping[str, Any], *, days: int, most_days: int) -> Action:
    """`fields`: those of the query and of the body together; `days`: of a certificate when nobody states them.

    Raises:
        Refusal: MALFORMED.
    """
    match fields.get("action"):
        case "apply":
            request = _csr(fields)
            check_issue_authority(_issue_authority(fields) or RSA, request.key)
            return Apply(request, _days(fields, days, most_days))
        case "renew":
            new = _csr(fields) if fields.get("csr") not in (None, "") else None
            return Renew(_serial(fields), new, _days(fields, days, most_days), _issue_authority(fields))
        case "revoke":
            return Revoke(_serial(fields), _reason(fields))
        case _:
            raise malformed("action", "must be apply, renew or revoke")


def _csr(fields: Mapping[str, Any]) -> pki.Request:
    text = fields.get("csr")
    if not isinstance(text, str):
        raise wire.malformed("csr")
    request = pki.read_csr(text)
    pki.check_subject(request.subject, "csr", SUBJECT)
    for name in SUBJECT:
        if len(request.attribute(name)) > LONGEST_ATTRIBUTE:
            raise malformed("csr", f"must have 1 to {LONGEST_ATTRIBUTE} characters in {name} of its subject")
    return request


def _days(fields: Mapping[str, Any], days: int, most_days: int) -> int:
    value = fields.get("validDay")
    if value is None:
        return min(days, most_days)
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= most_days:
        raise malformed("validDay", f"must be a whole number of days, 1 to {most_days}")
    return value


def _issue_authority(fields: Mapping[str, Any]) -> str:
    value = fields.get("issueAuthority")
    if value in (None, ""):
        return ""
    if not isinstance(value, str) or value.upper() not in {RSA, ECC}:
        raise malformed("issueAuthority", "must be RSA or ECC")
    return value.upper()


def kind_of(key: object) -> str:
    return RSA if isinstance(key, rsa.RSAPublicKey) else ECC


def check_issue_authority(stated: str, key: object) -> None:
    """Raises: Refusal MALFORMED, when it does not fit the key."""
    if stated != kind_of(key):
        raise malformed("issueAuthority", f"is {stated} (RSA unless stated), and the key is {kind_of(key)}")


def _serial(fields: Mapping[str, Any]) -> str:
    value = fields.get("certSn", fields.get("certSN"))
    if isinstance(value, int) and not isinstance(value, bool) and value > 0:
        value = f"{value:x}"
    if not isinstance(value, str) or not value:
        raise wire.malformed("certSn")
    try:
        return pki.read_serial(value)
    except Refusal as refusal:
        raise malformed("certSn", str(refusal.detail["rule"])) from None


def _reason(fields: Mapping[str, Any]) -> Revocation | None:
    value = fields.get("reason", 0)
    if isinstance(value, str) and re.fullmatch("[0-9]", value, re.ASCII):  # in the query
        value = int(value)
    if value is None:
        value = 0
    if not isinstance(value, int) or isinstance(value, bool) or value not in REASONS:
        raise malformed("reason", f"must be one of {', '.join(map(str, REASONS))}")
    return REASONS[value]


# --- replies ---------------------------------------------------------------------------------------------------------

REFUSALS: Final[Mapping[Reason, dps_wire.Row]] = {
    **dps_wire.REFUSALS,
    Reason.UNKNOWN: dps_wire.Row(35404, "{what} not found", 404),
    Reason.DUPLICATE: dps_wire.Row(dps_wire.INVALID.code, "Invalid cert request!message: {field} is taken", 409),
    Reason.ILLEGAL_TRANSITION: dps_wire.Row(
        dps_wire.INVALID.code, "Invalid cert request!message: {what} is {state} and cannot {step}", 409
    ),
    Reason.IN_USE: dps_wire.Row(
        dps_wire.INVALID.code, "Invalid cert request!message: the device has changed: try again", 409
    ),
    Reason.UNSUPPORTED: dps_wire.Row(dps_wire.UNAUTHORIZED.code, dps_wire.UNAUTHORIZED.words + ": {rule}", 403),
}


def write_error(refusal: Refusal, request_id: str) -> tuple[int, dict[str, object]]:
    """HTTP status and body, as `dps_wire.write_error` has them; here the words may say what is wrong with a field."""
    row, detail = REFUSALS[refusal.reason], refusal.detail
    if refusal.reason is Reason.MALFORMED and "rule" in detail:
        words = "Invalid Argument {field}:{field} {rule}".format_map(detail)
    else:
        what = next((name for name in ("authority", "certificate") if name in detail), "device")
        if refusal.reason is Reason.ILLEGAL_TRANSITION:
            what = "the authority" if what == "authority" else "the certificate"
        defaults = {"field": "body", "what": what.capitalize() if refusal.reason is Reason.UNKNOWN else what,
                    "state": "in a state", "step": "do that", "rule": "", "serial": ""}  # fmt: skip
        named = {"field": "the common name"} if detail.get("field") == "cn" else {}
        words = row.words.format_map(defaults | detail | named)
    return row.status, {"code": row.code, "msg": words, "requestId": request_id, "data": None}


def write_reply(data: Mapping[str, object]) -> dict[str, object]:
    return {"code": 0, "msg": "OK", "requestId": str(uuid4()), "data": data}


def write_certificate(issued: Certificate, authority: Authority, base: str) -> dict[str, object]:
    """`cert` is followed by the authorities between it and the anchor; clients read the first block."""
    leaf = pki.read_certificate(issued.der)
    ca = urls(base, authority).ca
    return {
        "cert": certify.bundle(authority, issued),
        "caCert": pki.write_pem(authority.certificate, *authority.chain),
        "certChainURL": ca.removesuffix("der") + "pem" if ca else "",
        "certSN": issued.serial,
        "issueAuthority": kind_of(leaf.public_key()),
    }
