from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from itertools import product as combinations

import pytest

from provisioning.core.enrol import NOBODY
from provisioning.core.login import CertificateRole, Means, Write, asks_for_certificate, judge, judge_connection
from provisioning.model.credential import Credential, DeviceCredential, ProductCredential
from provisioning.model.identity import Identity
from provisioning.model.refusal import Reason, Refusal
from provisioning.store.holdings import Holding

IDENTITY = Identity("proto", "pk", "dk")


@dataclass
class Claim:
    """Holds for one secret, and remembers with which it was tried."""

    means: Means
    secret: str
    identity: Identity = IDENTITY
    tried: list[str] = field(default_factory=list)
    certificate_role: CertificateRole = CertificateRole.BESIDE

    def proven_by(self, secret: str) -> bool:
        self.tried.append(secret)
        return self.secret == secret


def credential(
    *, product: bool = True, device: bool = True, disabled: bool = False, activated: bool = False,
    dynamic: bool = True, create: bool = False,
) -> Credential:  # fmt: skip
    return Credential(
        IDENTITY,
        ProductCredential(id=1, secret="ps", dynamic_activation=dynamic, auto_create=create) if product else None,
        DeviceCredential(id=2, secret="ds", epoch=0, asset="", disabled=disabled, activated=activated)
        if device
        else None,
    )


D, P = Means.DEVICE, Means.PRODUCT


@pytest.mark.parametrize(
    ("means", "secret", "given", "expected"),
    [
        (D, "ds", {}, Write.ACTIVATION),
        (D, "ds", {"activated": True}, Write.NOTHING),
        (D, "ds", {"dynamic": False}, Write.ACTIVATION),
        (D, "ds", {"disabled": True}, Reason.DISABLED),
        (D, "ds", {"disabled": True, "activated": True}, Reason.DISABLED),
        (D, "no", {"disabled": True}, Reason.NOT_PROVEN),
        (D, "ps", {}, Reason.NOT_PROVEN),
        (D, "ds", {"device": False}, Reason.NOT_PROVEN),
        (D, "ds", {"device": False, "create": True}, Reason.NOT_PROVEN),
        (D, "ds", {"device": False, "product": False}, Reason.NOT_PROVEN),
        (D, "", {"device": False}, Reason.NOT_PROVEN),
        (P, "ps", {}, Write.ISSUE),
        (P, "ps", {"activated": True}, Reason.ACTIVATION_SPENT),
        (P, "ps", {"disabled": True}, Reason.DISABLED),
        (P, "ps", {"dynamic": False}, Reason.ACTIVATION_OFF),
        (P, "ps", {"dynamic": False, "disabled": True}, Reason.ACTIVATION_OFF),
        (P, "ps", {"dynamic": False, "device": False, "create": True}, Reason.ACTIVATION_OFF),
        (P, "ps", {"device": False}, Reason.NOT_PROVEN),
        (P, "ps", {"device": False, "create": True}, Write.CREATE),
        (P, "ps", {"device": False, "product": False}, Reason.NOT_PROVEN),
        (P, "ds", {}, Reason.NOT_PROVEN),
        (P, "no", {"dynamic": False}, Reason.NOT_PROVEN),
        (P, "no", {"disabled": True}, Reason.NOT_PROVEN),
        (P, "no", {"activated": True}, Reason.NOT_PROVEN),
        (P, "no", {"device": False, "create": True}, Reason.NOT_PROVEN),
    ],
)
def test_every_case(means: Means, secret: str, given: dict[str, bool], expected: Write | Reason) -> None:
    claim = Claim(means, secret)
    if isinstance(expected, Write):
        assert judge(claim, credential(**given)).write is expected
    else:
        with pytest.raises(Refusal) as caught:
            judge(claim, credential(**given))
        assert caught.value.reason is expected
        assert caught.value.detail.keys() <= {"known"}, "no more is for the log"
    assert len(claim.tried) == 1


def test_without_a_proof_nothing_is_told() -> None:
    """Whatever there is and whatever state it is in: the same reason, after one computed proof."""
    for means in Means:
        for product, device, disabled, activated, dynamic, create in combinations((False, True), repeat=6):
            if device and not product:
                continue
            claim = Claim(means, "wrong")
            with pytest.raises(Refusal) as caught:
                judge(claim, credential(product=product, device=device, disabled=disabled, activated=activated,
                                        dynamic=dynamic, create=create))  # fmt: skip
            assert caught.value.reason is Reason.NOT_PROVEN
            known = device if means is Means.DEVICE else product
            assert claim.tried == [{Means.DEVICE: "ds", Means.PRODUCT: "ps"}[means] if known else NOBODY]


def test_who_guesses_nobodys_secret_gains_nothing() -> None:
    for means in Means:
        with pytest.raises(Refusal, match="not_proven"):
            judge(Claim(means, NOBODY), credential(product=False, device=False))


# --- certificates ---

B, I, A = CertificateRole  # noqa: E741 - a column of a table
NOW = datetime(2030, 1, 1, tzinfo=UTC)
GOOD = Holding(1, "00", 1, "1", 2, NOW - timedelta(1), NOW + timedelta(1), good=True)
NONE, OTHER, NOBODYS = None, replace(GOOD, device_id=3), replace(GOOD, device_id=None)
ABSENT = {"product": False, "device": False}
NOT_PROVEN, REQUIRED = Reason.NOT_PROVEN, Reason.CERTIFICATE_REQUIRED


@pytest.mark.parametrize(
    ("role", "certificates", "tls", "holding", "secret", "given", "expected"),
    [
        (B, False, False, NONE, "ds", {}, Write.ACTIVATION),
        (B, False, True, NONE, "ds", {}, REQUIRED),
        (B, False, True, GOOD, "ds", {}, REQUIRED),
        (B, True, False, NONE, "ds", {}, REQUIRED),
        (B, True, True, NONE, "ds", {}, REQUIRED),
        (B, True, True, GOOD, "ds", {}, Write.ACTIVATION),
        (B, True, True, GOOD, "no", {}, NOT_PROVEN),
        (B, True, True, NONE, "no", {}, NOT_PROVEN),
        (B, True, True, OTHER, "ds", {}, REQUIRED),
        (B, True, True, GOOD, "ds", {"disabled": True}, Reason.DISABLED),
        (I, False, False, NONE, "ds", {}, Write.ACTIVATION),
        (I, False, True, NONE, "ds", {}, Write.ACTIVATION),
        (I, False, True, OTHER, "ds", {"activated": True}, Write.NOTHING),
        (I, False, True, GOOD, "no", {}, NOT_PROVEN),
        (I, True, False, NONE, "ds", {}, REQUIRED),
        (I, True, True, NONE, "ds", {}, REQUIRED),
        (I, True, True, NONE, "no", {}, REQUIRED),
        (I, True, True, NONE, "ds", {"device": False}, REQUIRED),
        (I, True, True, GOOD, "ds", {"device": False}, REQUIRED),
        (I, True, True, NONE, "ds", {"disabled": True}, REQUIRED),
        (I, True, True, OTHER, "ds", {"disabled": True}, REQUIRED),
        (I, True, True, replace(GOOD, good=False), "ds", {}, REQUIRED),
        (I, True, True, replace(GOOD, not_after=NOW), "ds", {}, REQUIRED),
        (I, True, True, replace(GOOD, not_before=NOW + timedelta(1)), "ds", {}, REQUIRED),
        (I, True, True, GOOD, "ds", {}, Write.ACTIVATION),
        (I, True, True, GOOD, "no", {"activated": True}, Write.NOTHING),
        (I, True, True, GOOD, "no", {"disabled": True}, Reason.DISABLED),
        (I, False, True, GOOD, "ds", ABSENT, NOT_PROVEN),
        (A, True, True, GOOD, "no", {}, Write.ACTIVATION),
        (A, True, True, GOOD, "no", {"activated": True}, Write.NOTHING),
        (A, True, True, GOOD, "no", {"disabled": True}, Reason.DISABLED),
        (A, True, True, NONE, "ds", {}, REQUIRED),
        (A, True, True, OTHER, "ds", {}, REQUIRED),
        (A, True, True, replace(GOOD, good=False), "ds", {}, REQUIRED),
        (A, True, True, replace(GOOD, not_after=NOW), "ds", {}, REQUIRED),
        (A, True, True, replace(GOOD, not_before=NOW + timedelta(1)), "ds", {}, REQUIRED),
        (A, True, False, NONE, "ds", {}, REQUIRED),
        (A, False, True, GOOD, "ds", {}, REQUIRED),
        (A, True, True, GOOD, "ds", {"device": False}, REQUIRED),
        (A, True, True, NONE, "ds", {"device": False}, REQUIRED),
        (A, False, False, NONE, "ds", ABSENT, REQUIRED),
        (A, True, True, NOBODYS, "ds", {}, NOT_PROVEN),
        (A, True, True, replace(NOBODYS, good=False), "ds", {"device": False}, NOT_PROVEN),
        (A, True, True, replace(NOBODYS, good=False), "ds", ABSENT, NOT_PROVEN),
    ],
)
def test_what_a_certificate_is_to_a_login(  # noqa: PLR0917 - the columns of a table
    role: CertificateRole, certificates: bool, tls: bool, holding: Holding | None, secret: str,
    given: dict[str, bool], expected: Write | Reason,
) -> None:  # fmt: skip
    claim = Claim(Means.DEVICE, secret, certificate_role=role)
    known = credential(**given)
    if known.product is not None:
        known = replace(known, product=replace(known.product, certificate_login=certificates))
    if isinstance(expected, Write):
        assert judge_connection(claim, known, holding, tls=tls, now=NOW).write is expected
    else:
        with pytest.raises(Refusal) as caught:
            judge_connection(claim, known, holding, tls=tls, now=NOW)
        assert caught.value.reason is expected
    assert len(claim.tried) == 1, "a proof is computed once, whatever counts"
    if not asks_for_certificate(claim, known.product, tls=tls):
        assert expected is not REQUIRED
