"""May this claim log in? A pure judgement: whoever calls it does the look-up before and the write after."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final, Protocol

from provisioning.core.enrol import NOBODY, Grant, may_have_secret
from provisioning.model.credential import Credential, ProductCredential
from provisioning.model.identity import Identity
from provisioning.model.refusal import Reason, Refusal
from provisioning.store.holdings import Holding


class Means(StrEnum):
    """With which secret a login is proven."""

    DEVICE = "device"
    """The device's own: an ordinary login."""
    PRODUCT = "product"
    """The product's: a dynamic activation, which asks for the device's own."""


class CertificateRole(StrEnum):
    """What a certificate is to a login by the device's secret, in products whose devices have certificates."""

    BESIDE = "beside"
    """Both must hold; and no other product's devices log in over TLS."""
    INSTEAD = "instead"
    """The certificate alone proves, the secret is not asked for. The others log in over TLS by their secret too."""
    ALONE = "alone"
    """There is no secret to log in with. The certificate names the device: whose device is gone may learn that."""


class LoginClaim(Protocol):
    """What a protocol read from a CONNECT."""

    @property
    def identity(self) -> Identity: ...
    @property
    def means(self) -> Means: ...
    @property
    def certificate_role(self) -> CertificateRole: ...
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


def asks_for_certificate(claim: LoginClaim, product: ProductCredential | None, *, tls: bool) -> bool:
    """Is the login judged by the certificate that the peer shows, alone or beside the secret?"""
    role = claim.certificate_role
    return (
        role is CertificateRole.ALONE
        or (product is not None and product.certificate_login)
        or (tls and role is CertificateRole.BESIDE)
    )


def judge_connection(
    claim: LoginClaim, credential: Credential, holding: Holding | None, *, tls: bool, now: datetime
) -> Judgement:
    """Admit or refuse who has come, with TLS or without, and has shown the certificate `holding` (None: none of ours).

    Raises:
        Refusal: as `judge` and `judge_certificate`. Where the certificate is the proof, who shows no good one is told
            CERTIFICATE_REQUIRED whether the device exists or not; where it is the only one, NOT_PROVEN says that the
            certificate is ours and belongs to no device, or to none any more.
    """
    product, device_id = credential.product, credential.device.id if credential.device else None
    if not asks_for_certificate(claim, product, tls=tls):
        return judge(claim, credential)
    if claim.certificate_role is CertificateRole.BESIDE:
        judgement = judge(claim, credential)
        judge_certificate(product, device_id, holding, now, tls=tls)
        return judgement
    claim.proven_by(NOBODY)  # for the time that it takes
    if claim.certificate_role is CertificateRole.ALONE and holding is not None and holding.device_id is None:
        raise Refusal(Reason.NOT_PROVEN, known=False)
    judge_certificate(product, device_id, holding, now, tls=tls)
    return judge(claim, credential, certified=True)


def judge(claim: LoginClaim, credential: Credential, *, certified: bool = False) -> Judgement:
    """Admit or refuse. `certified`: the device has proven itself by its certificate, and its secret does not count.

    Raises:
        Refusal: NOT_PROVEN for an unknown identity and for a wrong proof alike, in the same time; the others only after
            the proof held: DISABLED, ACTIVATION_OFF, ACTIVATION_SPENT.
    """
    product, device = credential.product, credential.device
    if claim.means is Means.DEVICE:
        known = device is not None
        proven = certified or claim.proven_by(device.secret if device else NOBODY)
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
    if device is None and not product.auto_create:  # here nobody learns which devices there are
        raise Refusal(Reason.NOT_PROVEN, known=False)
    return GRANTED[Write.CREATE if may_have_secret(product, device) is Grant.CREATE else Write.ISSUE]


def judge_certificate(
    product: ProductCredential | None,
    device_id: int | None,
    holding: Holding | None,
    now: datetime,
    *,
    tls: bool = True,
) -> None:
    """Does the certificate that a peer has shown let it in? None: it has shown none of the inventory.

    Raises:
        Refusal: CERTIFICATE_REQUIRED, with detail `certificate`: what is wrong with it.
    """
    wrong = ""
    if not tls:
        wrong = "this listener takes none"
    elif product is None or not product.certificate_login:
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
