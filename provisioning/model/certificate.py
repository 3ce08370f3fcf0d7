"""Authorities and the certificates that they issue, as the store knows them. Private keys have no place here."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Final

from provisioning.model.events import Event
from provisioning.model.identity import Identity
from provisioning.model.refusal import Reason, Refusal

NOBODY: Final = Identity("", "", "")
"""Whom an event tells of that is about no device."""


class Profile(StrEnum):
    """What a certificate is for."""

    DEVICE = "device"
    SERVER = "server"
    OCSP = "ocsp"


class Revocation(StrEnum):
    """Why a certificate is revoked (CRLReason, RFC 5280, 5.3.1).

    `certificateHold` is a status here, and `removeFromCRL` is for delta CRLs.
    """

    UNSPECIFIED = "unspecified"
    KEY_COMPROMISE = "keyCompromise"
    CA_COMPROMISE = "cACompromise"
    AFFILIATION_CHANGED = "affiliationChanged"
    SUPERSEDED = "superseded"
    CESSATION_OF_OPERATION = "cessationOfOperation"
    PRIVILEGE_WITHDRAWN = "privilegeWithdrawn"


class Status(StrEnum):
    VALID = "valid"
    HELD = "held"
    """Not to be trusted for now; the hold may be released."""
    REVOKED = "revoked"


class Step(StrEnum):
    HOLD = "hold"
    RELEASE = "release"
    REVOKE = "revoke"
    RENEW = "renew"
    """A successor is issued, for the same key or another; the certificate itself stays as it is."""


TABLE: Final[Mapping[tuple[Status, Step], Status]] = {
    (Status.VALID, Step.HOLD): Status.HELD,
    (Status.VALID, Step.REVOKE): Status.REVOKED,
    (Status.VALID, Step.RENEW): Status.VALID,
    (Status.HELD, Step.RELEASE): Status.VALID,
    (Status.HELD, Step.REVOKE): Status.REVOKED,
}


def after(status: Status, step: Step) -> Status:
    """Where `step` leads from `status`.

    Raises:
        Refusal: ILLEGAL_TRANSITION, when the table has no such row.
    """
    try:
        return TABLE[status, step]
    except KeyError:
        raise Refusal(Reason.ILLEGAL_TRANSITION, state=str(status), step=str(step)) from None


@dataclass(frozen=True, slots=True, kw_only=True)
class Authority:
    """One generation of a certificate authority. A rotation adds the next one; this one is trusted until it expires."""

    name: str
    """Lower-case letters, digits and hyphens: it stands in URLs."""
    generation: int
    certificate: bytes = field(repr=False)
    """DER."""
    chain: tuple[bytes, ...] = field(default=(), repr=False)
    """DER, from its issuer up to an anchor; empty for a self-signed one."""
    key_type: str
    has_key: bool
    """False: trusted, and signs nothing here."""
    serial: str
    subject: str
    """RFC 4514."""
    not_before: datetime
    not_after: datetime
    is_default: bool = False
    retired_at: datetime | None = None
    """Since when it issues no certificates; it still signs its CRL and OCSP responses."""
    distrusted_at: datetime | None = None
    """Since when nothing that it issued is accepted."""
    of_account: bool = False
    """It certifies the modules of an account, and nobody logs in here with what it issues."""
    id: int = 0
    created_at: datetime | None = None

    def __str__(self) -> str:
        return f"{self.name}/{self.generation}"

    def check_may_issue(self, now: datetime) -> None:
        """Raises: Refusal ILLEGAL_TRANSITION, when it has no key, is retired, distrusted or not valid now."""
        states = {
            "without a key": not self.has_key,
            "retired": self.retired_at is not None,
            "distrusted": self.distrusted_at is not None,
            "expired": now >= self.not_after,
            "not yet valid": now < self.not_before,
        }
        if state := next((state for state, holds in states.items() if holds), None):
            raise Refusal(Reason.ILLEGAL_TRANSITION, authority=str(self), state=state, step="issue")


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """A certificate in the inventory."""

    authority_id: int
    serial: str
    """Hexadecimal, lower case, no leading zeros. Unique within the authority."""
    fingerprint: str
    """SHA-256 of `der`, hexadecimal, lower case."""
    der: bytes = field(repr=False)
    profile: Profile
    cn: str
    """First common name of the subject; empty when it has none."""
    not_before: datetime
    not_after: datetime
    device_id: int | None = None
    """None: not a device's, or its device was deleted (and this revoked)."""
    identity: Identity | None = None
    """Of the device."""
    status: Status = Status.VALID
    reason: Revocation | None = None
    revoked_at: datetime | None = None
    """Since when it is held or revoked."""
    superseded_by: int | None = None
    """Id of the certificate that takes its place."""
    last_seen_at: datetime | None = None
    """When a device last proved that it has this certificate's key."""
    id: int = 0
    created_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class CrlEntry:
    """A line of a CRL. `reason` None: on hold."""

    serial: str
    revoked_at: datetime
    reason: Revocation | None


class CertificateEvent(Event):
    """A fact about one certificate; `serial` is the certificate's. Without a device, `device_id` is 0."""


class CertificateIssued(CertificateEvent):
    kind = "certificate.issued"


class CertificateAdopted(CertificateEvent):
    """Issued elsewhere, and known here from now on."""

    kind = "certificate.adopted"


class CertificateRenewed(CertificateEvent):
    """`serial` is that of the new certificate."""

    kind = "certificate.renewed"


class CertificateRevoked(CertificateEvent):
    kind = "certificate.revoked"


class CertificateHeld(CertificateEvent):
    kind = "certificate.held"


class CertificateReleased(CertificateEvent):
    kind = "certificate.released"


class CertificateExpiring(CertificateEvent):
    """The certificate has less than 60, 30 or 7 days left; told once for each."""

    kind = "certificate.expiring"


class AuthorityCreated(CertificateEvent):
    """Made or imported; `serial` is that of the authority's own certificate."""

    kind = "authority.created"


class AuthorityDistrusted(CertificateEvent):
    """Nothing that it issued is accepted; `serial` is that of the authority's own certificate."""

    kind = "authority.distrusted"


class AuthorityRestored(CertificateEvent):
    """It is trusted again."""

    kind = "authority.restored"


class AuthorityRotated(CertificateEvent):
    """A new generation issues from now on; `serial` is that of its certificate."""

    kind = "authority.rotated"
