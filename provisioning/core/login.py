"""May this claim log in? A pure judgement: whoever calls it does the look-up before and the write after."""

import secrets
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final, Protocol

from provisioning.model.credential import Credential, ProductCredential
from provisioning.model.identity import Identity
from provisioning.model.refusal import Reason, Refusal
from provisioning.store.holdings import Holding

NOBODY: Final = secrets.token_urlsafe(24)
"""Stands for the secret of what does not exist: the proof is computed all the same, so that time tells nothing."""


class Means(StrEnum):
    """With which secret a login is proven."""

    DEVICE = "device"
    """The device's own: an ordinary login."""
    PRODUCT = "product"
    """The product's: a dynamic activation, which asks for the device's own."""


class LoginClaim(Protocol):
    """What a protocol read from a CONNECT."""

    @property
    def identity(self) -> Identity: ...
    @property
    def means(self) -> Means: ...
    def proven_by(self, secret: str) -> bool:
        """Does the claim's proof hold with this secret? In constant time."""
        ...


class Write(StrEnum):
    """What must be durable before the login is answered."""

    NOTHING = "nothing"
    ACTIVATION = "activation"
    """The first login with the device's own secret."""
    ISSUE = "issue"
    """One more session that hands out the secret."""
    CREATE = "create"
    """The device itself, then as ISSUE."""


@dataclass(frozen=True, slots=True)
class Judgement:
    write: Write


GRANTED: Final = {write: Judgement(write) for write in Write}


def judge(claim: LoginClaim, credential: Credential) -> Judgement:
    """Admit or refuse.

    Raises:
        Refusal: NOT_PROVEN for an unknown identity and for a wrong proof alike, in the same time; the others only after
            the proof held: DISABLED, ACTIVATION_OFF, ACTIVATION_SPENT.
    """
    product, device = credential.product, credential.device
    if claim.means is Means.DEVICE:
        known = device is not None
        proven = claim.proven_by(device.secret if device else NOBODY)
    else:
        known = product is not None
        proven = claim.proven_by(product.secret if product else NOBODY)
    if not (known and proven):
        raise Refusal(Reason.NOT_PROVEN, known=known)  # for the log alone: no answer may tell it
    if claim.means is Means.DEVICE:
        assert device is not None
        if device.disabled:
            raise Refusal(Reason.DISABLED)
        return GRANTED[Write.NOTHING if device.activated else Write.ACTIVATION]
    assert product is not None
    if device is None and not product.auto_create:
        raise Refusal(Reason.NOT_PROVEN, known=False)
    if not product.dynamic_activation:
        raise Refusal(Reason.ACTIVATION_OFF)
    if device is None:
        return GRANTED[Write.CREATE]
    if device.disabled:
        raise Refusal(Reason.DISABLED)
    if device.activated:
        raise Refusal(Reason.ACTIVATION_SPENT)
    return GRANTED[Write.ISSUE]


def judge_certificate(
    product: ProductCredential, device_id: int | None, holding: Holding | None, now: datetime
) -> None:
    """After the proof: does the certificate that a peer has shown let it in? None: it has shown none of the inventory.

    Raises:
        Refusal: CERTIFICATE_REQUIRED, with detail `certificate`: what is wrong with it.
    """
    wrong = ""
    if not product.certificate_login:
        wrong = "its product does not log in with certificates"
    elif holding is None:
        wrong = "missing, or not in the inventory"
    elif not holding.good:
        wrong = "revoked, on hold, or of an authority that is no longer trusted"
    elif not holding.not_before <= now < holding.not_after:
        wrong = "expired or not yet valid"
    elif device_id is None or holding.device_id != device_id:
        wrong = "of another device"
    if wrong:
        raise Refusal(Reason.CERTIFICATE_REQUIRED, certificate=wrong)
