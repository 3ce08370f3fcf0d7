"""One exception for every "no"."""

from enum import StrEnum


class Reason(StrEnum):
    """Why a request is turned down. Each protocol owns a total table from here to its own codes and words."""

    MALFORMED = "malformed"
    """A field is absent or not of its form; detail `field` names it."""
    MISSING = "missing"
    """A field is absent, where the protocol tells that from a malformed one; detail `field` names it."""
    UNSUPPORTED_VERSION = "unsupported_version"
    """A version of the transport protocol that this device protocol does not have."""
    UNSUPPORTED_MEDIA_TYPE = "unsupported_media_type"
    TOO_LARGE = "too_large"
    UNKNOWN = "unknown"
    """No such group, product or serial number, where the protocol says so openly."""
    DEVICE_UNKNOWN = "device_unknown"
    """The product's secret is proven; it has no such device, and does not let devices register themselves."""
    NOT_PROVEN = "not_proven"
    """Unknown identity or wrong proof: one reason for both, so that nobody can ask which."""
    STALE = "stale"
    """The proof is right and too old, or too far in the future."""
    NOT_ALLOCATED = "not_allocated"
    """Registered, and not yet given to a product."""
    DUPLICATE = "duplicate"
    """A name that is already taken."""
    DISABLED = "disabled"
    ACTIVATION_OFF = "activation_off"
    """The product does not activate its devices dynamically."""
    ACTIVATION_SPENT = "activation_spent"
    """The device has its secret already, or asked for it too often."""
    UNSUPPORTED = "unsupported"
    """A mode of the vendor's cloud that Gatehouse does not serve."""
    CERTIFICATE_REQUIRED = "certificate_required"
    LIMIT_REACHED = "limit_reached"
    """As many devices as the product allows have registered themselves."""
    RATE_LIMITED = "rate_limited"
    """Too many requests in too short a time; the same one may succeed a little later."""
    BLOCKED = "blocked"
    """Too many refusals in too short a time."""
    KICKED = "kicked"
    """An administrator has ended the session; the device may come again."""
    ILLEGAL_TRANSITION = "illegal_transition"
    """The device's life cycle has no such step from where it stands; details `state` and `step`."""
    IN_USE = "in_use"
    """Something else still needs it."""
    UNAVAILABLE = "unavailable"
    """The database is away; the same request may succeed later."""
    INTERNAL = "internal"


class Refusal(Exception):  # noqa: N818 - a refusal is an answer, not an error
    """A request is turned down for `reason`; `detail` holds what the protocol's own words need. Never a secret."""

    def __init__(self, reason: Reason, **detail: object) -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail

    def __str__(self) -> str:
        words = ", ".join(f"{name}={value!r}" for name, value in self.detail.items())
        return f"{self.reason} ({words})" if words else str(self.reason)
