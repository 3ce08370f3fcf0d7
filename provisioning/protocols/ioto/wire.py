"""Ioto on the wire: read, check, write. No I/O, no clock, no storage.

Sources: the vendor's "Device provisioning and management APIs", and what agents of both generations send and accept.
"""

import base64
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import sha256
from typing import Final

from provisioning.core import pki
from provisioning.model.claim import Claim
from provisioning.model.refusal import Reason, Refusal
from provisioning.model.update import Offer

PROTOCOL: Final = "ioto"

DEVICE_ID: Final = re.compile(r"[0-9A-Za-z_-]{1,64}")
"""Claim ids are Crockford base 32; agents have room for 64 characters of anything."""
ACCOUNT: Final = re.compile(r"[0-9A-Za-z_-]{1,64}")
"""Stands in topics, as the device id does."""
CLOUD: Final = re.compile(r"[0-9A-Za-z_-]{1,64}")
TOKEN: Final = re.compile(r"[\x21-\x7e]{1,256}")
"""Opaque: a product's, a device's or a user's."""
PRODUCT_KEY: Final = re.compile(r"P[a-z2-7]{15}")
LONGEST_NAME: Final = 64
LONGEST_API: Final = 120
"""Old agents hold 160 characters for a URL."""
LONGEST_UPDATE: Final = 100
MOST_RECORDS: Final = 100
CURSOR: Final = re.compile(r"[0-9]{1,18}")


def product_key(token: str) -> str:
    """The name of a product that may stand in logs, topics and certificates: its token leads to it, and not back.

    A key stays what it is: people may name a product by either.
    """
    if PRODUCT_KEY.fullmatch(token):
        return token
    return _derived_key(token)


def _derived_key(token: str) -> str:
    return "P" + base64.b32encode(sha256(token.encode("utf-8", "surrogatepass")).digest()).decode().lower()[:15]


def key_of_bearer(token: str) -> str:
    """As `product_key`, of what a device has shown: nobody proves anything with a key."""
    return _derived_key(token)


# --- requests --------------------------------------------------------------------------------------------------------


def invalid(text: str, name: str) -> Refusal:
    """A request that is turned down with these words; `name` is the field, for the log."""
    return Refusal(Reason.MALFORMED, field=name, text=text)


def read_authorization(header: str) -> str:
    """The token in an Authorization header: `bearer TOKEN` from agents, bare from the vendor's updater and samples.

    Raises:
        Refusal: NOT_PROVEN, when there is none.
    """
    scheme, space, rest = header.strip().partition(" ")
    token = rest.strip() if space and scheme.lower() == "bearer" else header.strip()
    if not TOKEN.fullmatch(token):
        raise Refusal(Reason.NOT_PROVEN, known="")
    return token


@dataclass(frozen=True, slots=True, kw_only=True)
class Registration:
    """A device tells of itself."""

    device: str
    body: Mapping[str, object]
    """All of it, with what nobody knows yet; but for the token of its product."""
    name: str = ""
    test: bool = False
    account: str = ""
    """Whose it is, and in which cloud, when it says both."""
    cloud: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkin:
    fields: Mapping[str, object]
    test: bool | None
    """None: not stated."""
    version: str | None
    """None: older than everything."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    update: str
    success: bool


def read_register(body: object, token: str) -> Registration:
    """`token`: the product's, as the device has shown it.

    Raises:
        Refusal: MALFORMED.
    """
    fields = _object(body)
    device = read_id(fields)
    if (product := fields.get("product")) is not None and product not in (token, key_of_bearer(token)):
        raise invalid("Product does not match the token", "product")
    account, cloud = fields.get("account"), fields.get("cloud")
    claims = bool(account and cloud)
    return Registration(
        device=device, body=without_token(fields, key_of_bearer(token)), name=_name(fields.get("name")),
        test=fields.get("test") is True,
        account=_match(ACCOUNT, account, "account") if claims else "",
        cloud=_match(CLOUD, cloud, "cloud") if claims else "",
    )  # fmt: skip


def read_checkin(body: object, device: str, product: str) -> Checkin:
    """`device`, `product`: whose token was shown, and the key of its product. Raises: Refusal MALFORMED."""
    fields = _object(body)
    check_id(fields, device)
    version = fields.get("version")
    if not (version is None or isinstance(version, str)):
        raise invalid("Invalid version", "version")
    test = fields.get("test")
    return Checkin(
        fields=without_token(fields, product), test=test if isinstance(test, bool) else None, version=version or None
    )


def read_report(body: object, device: str) -> Report:
    """Raises: Refusal MALFORMED."""
    fields = _object(body)
    check_id(fields, device)
    update, success = fields.get("update"), fields.get("success")
    if not isinstance(update, str) or not 0 < len(update) <= LONGEST_UPDATE:
        raise invalid("Invalid update", "update")
    if not isinstance(success, bool):
        raise invalid("Invalid success", "success")
    return Report(update=update, success=success)


def read_get_certs(body: object, device: str) -> None:
    """Raises: Refusal MALFORMED, when it does not name the device whose token was shown."""
    fields = _object(body)
    read_id(fields)
    check_id(fields, device)


def check_id(fields: Mapping[str, object], device: str) -> None:
    if fields.get("id", device) not in (None, device):  # a tuple: it may be anything, also unhashable
        raise invalid("Device id mismatch", "id")


def read_id(fields: Mapping[str, object]) -> str:
    """Raises: Refusal MALFORMED."""
    device = fields.get("id")
    if device is None or device == "":
        raise invalid("Missing device id", "id")
    if not isinstance(device, str) or not DEVICE_ID.fullmatch(device):
        raise invalid("Invalid device id", "id")
    return device


def without_token(fields: Mapping[str, object], product: str) -> dict[str, object]:
    """The fields with the product's key in the place of its token: they are kept, and a token is a secret."""
    found = {
        name: product for name in ("product", "productId")
        if isinstance(value := fields.get(name), str) and key_of_bearer(value) == product
    }  # fmt: skip
    return {**fields, **found}


def _object(body: object) -> dict[str, object]:
    if not isinstance(body, dict):
        raise invalid("Invalid request body", "body")
    return body


def _match(form: re.Pattern[str], value: object, name: str) -> str:
    if not isinstance(value, str) or not form.fullmatch(value):
        raise invalid(f"Invalid {name}", name)
    return value


def _name(value: object) -> str:
    text = value if isinstance(value, str) else ""
    return "".join(each if each.isprintable() else " " for each in text).strip()[:LONGEST_NAME].strip()


# --- requests of administrators --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimRequest:
    device: str
    account: str = ""
    cloud: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Find:
    product: str | None = None
    """Its key."""
    account: str | None = None
    after: int | None = None
    before: int | None = None
    limit: int = MOST_RECORDS


def read_claim(body: object) -> ClaimRequest:
    """Raises: Refusal MALFORMED."""
    fields = _object(body)
    account = fields.get("accountId") or fields.get("account")
    cloud = fields.get("cloudName") or fields.get("cloud")
    return ClaimRequest(
        device=read_id(fields), account=_match(ACCOUNT, account, "account") if account else "",
        cloud=_match(CLOUD, cloud, "cloud") if cloud else "",
    )  # fmt: skip


def read_device(body: object) -> str:
    """Raises: Refusal MALFORMED."""
    return read_id(_object(body))


def read_find(body: object) -> Find:
    """Raises: Refusal MALFORMED."""
    fields = _object(body)
    product = fields.get("productId") or fields.get("product")
    account = fields.get("accountId") or fields.get("account")
    limit = fields.get("limit")
    if limit is None:
        limit = MOST_RECORDS
    if isinstance(limit, bool) or not isinstance(limit, int) or not 1 <= limit <= MOST_RECORDS:
        raise invalid("Invalid limit", "limit")
    after, before = (_cursor(fields, name) for name in ("next", "prev"))
    if after is not None and before is not None:
        raise invalid("Invalid prev", "prev")
    return Find(
        product=product_key(_match(TOKEN, product, "product")) if product else None,
        account=_match(ACCOUNT, account, "account") if account else None, after=after, before=before, limit=limit,
    )  # fmt: skip


def _cursor(fields: Mapping[str, object], name: str) -> int | None:
    value = fields.get(name)
    return int(_match(CURSOR, value, name)) if value is not None else None


# --- replies ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Certified:
    """What a device needs to connect."""

    certificate: str
    """PEM, with what is needed above it."""
    key: str = field(repr=False)
    host: str
    """A DNS name: agents refuse an address, even where the certificate has it."""
    port: int


def write_registered() -> dict[str, object]:
    """Nobody has claimed the device: exactly this, agents count the nodes."""
    return {"registered": True}


def write_claimed(device: str, claim: Claim, *, api: str, token: str) -> dict[str, object]:
    return {"registered": True, "api": api, "token": token, "id": device, **_cloud(claim)}


def _cloud(claim: Claim) -> dict[str, object]:
    return {"cloudType": str(claim.cloud_type), "cloudName": claim.cloud_name, "cloudRegion": claim.cloud_region}


def write_offer(offer: Offer | None, url: str) -> dict[str, object]:
    """Agents look for `url`; the stand-alone updater wants `update` too."""
    if offer is None:
        return {"message": "No update available"}
    return {"checksum": offer.checksum, "version": offer.version, "url": url, "update": offer.update_id}


def write_certified(device: str, claim: Claim, made: Certified) -> dict[str, object]:
    return {
        "accountId": claim.account, "certificate": made.certificate, "endpoint": made.host, "id": device,
        "key": made.key, "port": made.port, "thing": device, **_cloud(claim),
    }  # fmt: skip


def write_blocked(delay: int) -> dict[str, object]:
    """With status 200; `delay`: seconds until the device may ask again."""
    return {"error": "Device is blocked", "delay": delay}


def write_credentials(
    *, access_key_id: str, secret_access_key: str, session_token: str, region: str, expires: datetime
) -> dict[str, object]:
    return {
        "accessKeyId": access_key_id, "secretAccessKey": secret_access_key, "sessionToken": session_token,
        "expires": write_date(expires), "region": region,
    }  # fmt: skip


def write_date(moment: datetime) -> str:
    """`YYYY-MM-DDTHH:MM:SS.fffZ`"""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def is_dns_name(text: str) -> bool:
    """A name that agents connect to: no address, no wildcard."""
    return pki.is_host(text) and "*" not in text and not text.rpartition(".")[2].isdigit()
