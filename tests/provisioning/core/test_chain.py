"""provisioning/core/chain.py"""

from datetime import UTC, datetime, timedelta
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from hypothesis import given, settings
from hypothesis import strategies as st

from provisioning.core import chain
from provisioning.model.certificate import Profile
from provisioning.model.refusal import Reason, Refusal
from tests.openssl import Made, made, outcome, verify

pytestmark = pytest.mark.slow

NOW = datetime.now(UTC).replace(microsecond=0)
ROOT = made("Root")
MIDDLE = made("Middle", ROOT)
OWN = made("Issuing", MIDDLE, path_length=0)
KEY = ec.generate_private_key(ec.SECP256R1())


def name(**attributes: str) -> x509.Name:
    known = {"cn": NameOID.COMMON_NAME, "o": NameOID.ORGANIZATION_NAME, "mail": NameOID.EMAIL_ADDRESS}
    return x509.Name([x509.NameAttribute(known[key], value) for key, value in attributes.items()])


def leaf(by: Made, subject: x509.Name | str = "device-1", *names: x509.GeneralName, **more: Any) -> Made:
    extra = list(more.pop("extra", []))
    if names:
        extra.append((x509.SubjectAlternativeName(names), False))
    return made(subject, by, ca=False, key=KEY, extra=extra, **more)


def ours(of: Made, *pool: Made, anchor: Made = ROOT, now: datetime = NOW, profile: Profile | None = None) -> str:
    """What our check says: empty, or the rule."""
    pool_of = [each.certificate for each in pool]
    found = outcome(chain.verify_leaf, of.certificate, [anchor.certificate], now, pool=pool_of, profile=profile)
    if not isinstance(found, Refusal):
        return ""
    assert (found.reason, found.detail["field"]) == (Reason.MALFORMED, "certificate")
    return str(found.detail["rule"])


def test_finds_the_path_whatever_the_order() -> None:
    path = [OWN.certificate, MIDDLE.certificate, ROOT.certificate]
    pool = [ROOT.certificate, made("Other").certificate, MIDDLE.certificate, OWN.certificate]
    for order in (pool, pool[::-1]):
        assert chain.verify_leaf(leaf(OWN).certificate, [ROOT.certificate], NOW, pool=order) == path
    assert chain.verify_leaf(leaf(OWN).certificate, [OWN.certificate], NOW) == path[:1]


def test_takes_the_parent_that_is_valid_of_two_with_one_key() -> None:
    """An authority that was certified anew keeps its name and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    old = made("Renewed", ROOT, key=key, not_after=NOW - timedelta(days=1))
    new = made("Renewed", ROOT, key=key)
    for pool in ((old, new), (new, old)):
        assert ours(leaf(new), *pool) == ""


def test_authorities_that_certify_each_other_end_nowhere() -> None:
    keys = [ec.generate_private_key(ec.SECP256R1()) for _ in range(2)]
    first = made("A", made("B", key=keys[1]), key=keys[0])
    second = made("B", made("A", key=keys[0]), key=keys[1])
    assert "issued by CN=A, which is not trusted" in ours(leaf(first), first, second)


def test_a_path_has_an_end() -> None:
    tower = [made("Tower 0")]
    for n in range(1, 10):
        tower.append(made(f"Tower {n}", tower[-1]))
    assert ours(leaf(tower[6]), *tower, anchor=tower[0]) == ""
    assert "not trusted" in ours(leaf(tower[7]), *tower, anchor=tower[0])
    crowd = [ROOT] * chain.LARGEST_POOL
    assert "more than 32 authorities" in ours(leaf(OWN), *crowd)


NO = {
    "self-signed": (made("device-1", ca=False, key=KEY), (), "is self-signed"),
    "unknown issuer": (leaf(made("Stranger")), (MIDDLE, OWN), "issued by CN=Stranger, which is not trusted"),
    "same name, other key": (leaf(made("Issuing", MIDDLE)), (MIDDLE, OWN), "not trusted"),
    "expired": (leaf(OWN, not_after=NOW - timedelta(seconds=1)), (MIDDLE, OWN), "CN=device-1 expired on"),
    "not yet valid": (leaf(OWN, not_before=NOW + timedelta(hours=1)), (MIDDLE, OWN), "is not valid before"),
    "weak signature": (leaf(OWN, digest=hashes.SHA224()), (MIDDLE, OWN), "must be signed with SHA-256"),
    "a leaf as authority": (leaf(x := made("Leaf", OWN, ca=False)), (MIDDLE, OWN, x), "CN=Leaf is not an authority"),
    "too long a path": (leaf(y := made("Sub", OWN)), (MIDDLE, OWN, y), "CN=Issuing allows 0 authorities"),
    "critical extension": (
        leaf(OWN, extra=[(x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3"), b"\5\0"), True)]),
        (MIDDLE, OWN), "1.2.3"),
}  # fmt: skip


@pytest.mark.server
@pytest.mark.parametrize("case", NO)
def test_refuses_what_openssl_refuses(case: str, tmp_path: Path) -> None:
    of, pool, rule = NO[case]
    assert rule in ours(of, *pool)
    code, said = verify(tmp_path, of.certificate, ROOT.certificate, *(each.certificate for each in pool))
    if case != "weak signature":  # OpenSSL takes 112 bits at its default level
        assert code == 2, said


def test_extended_key_usages_bind() -> None:
    client = [(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), False)]
    server = [(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), False)]
    kept = made("Kept", ROOT, extra=server)
    free = made("Free", ROOT, extra=[(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE]), False)])
    assert ours(leaf(free, extra=client), free, profile=Profile.DEVICE) == ""
    assert "is not for the profile device" in ours(leaf(free, extra=server), free, profile=Profile.DEVICE)
    assert "CN=Kept may not issue for the profile device" in ours(
        leaf(kept, extra=client), kept, profile=Profile.DEVICE
    )


DNS, MAIL, URI, DIR = x509.DNSName, x509.RFC822Name, x509.UniformResourceIdentifier, x509.DirectoryName


def ip(text: str) -> x509.IPAddress:
    return x509.IPAddress(ip_network(text) if "/" in text else ip_address(text))


# (constraint, subject, names, may it be certified when that is permitted?, when it is excluded?)
Row = tuple[x509.GeneralName, x509.Name, tuple[x509.GeneralName, ...], bool, bool]
NAMES: list[Row] = [
    (DNS("plant.example"), name(cn="x"), (DNS("plant.example"),), True, False),
    (DNS("plant.example"), name(cn="x"), (DNS("a.b.plant.example"),), True, False),
    (DNS("plant.example"), name(cn="x"), (DNS("PLANT.Example"),), True, False),
    (DNS("plant.example"), name(cn="x"), (DNS("plant.example.org"),), False, True),
    (DNS("plant.example"), name(cn="x"), (DNS("xplant.example"),), False, True),
    (DNS("plant.example"), name(cn="x"), (DNS("a.plant.example"), DNS("other.example")), False, False),
    (DNS("plant.example"), name(cn="x"), (ip("192.0.2.1"),), True, True),
    (DNS("plant.example"), name(cn="x"), (), True, True),
    (DNS("plant.example"), name(cn="evil.example"), (), False, True),
    (DNS("plant.example"), name(cn="a.plant.example"), (), True, False),
    (DNS("plant.example"), name(cn="evil.example"), (DNS("a.plant.example"),), True, False),
    (ip("192.0.2.0/24"), name(cn="x"), (ip("192.0.2.77"),), True, False),
    (ip("192.0.2.0/24"), name(cn="x"), (ip("192.0.3.77"),), False, True),
    (ip("192.0.2.0/24"), name(cn="x"), (ip("2001:db8::1"),), False, True),
    (ip("2001:db8::/32"), name(cn="x"), (ip("2001:db8::1"),), True, False),
    (MAIL("example.org"), name(cn="x"), (MAIL("a@example.org"),), True, False),
    (MAIL("example.org"), name(cn="x"), (MAIL("a@sub.example.org"),), False, True),
    (MAIL(".example.org"), name(cn="x"), (MAIL("a@sub.example.org"),), True, False),
    (MAIL("a@example.org"), name(cn="x"), (MAIL("a@EXAMPLE.org"),), True, False),
    (MAIL("a@example.org"), name(cn="x"), (MAIL("b@example.org"),), False, True),
    (MAIL("example.org"), name(cn="x", mail="a@example.net"), (), False, True),
    (URI("example.org"), name(cn="x"), (URI("https://example.org/a"),), True, False),
    (URI("example.org"), name(cn="x"), (URI("https://sub.example.org:8443/a"),), False, True),
    (URI(".example.org"), name(cn="x"), (URI("https://sub.example.org:8443/a"),), True, False),
    (DIR(name(o="Plant")), name(o="Plant", cn="x"), (), True, False),
    (DIR(name(o="Plant")), name(o="PLANT", cn="x"), (), True, False),
    (DIR(name(o="Plant")), name(o="Plants", cn="x"), (), False, True),
    (DIR(name(o="Plant")), name(cn="x", o="Plant"), (), False, True),
]  # fmt: skip


@pytest.mark.server
@pytest.mark.parametrize("row", NAMES)
def test_name_constraints_as_openssl_has_them(row: Row, tmp_path: Path) -> None:
    constraint, subject, names, permitted, excluded = row
    for subtrees, allowed in ((([constraint], None), permitted), ((None, [constraint]), excluded)):
        root = made(name(o="Authority"), constraints=subtrees)
        of = leaf(root, subject, *names)
        said_here = ours(of, anchor=root)
        assert (said_here == "") == allowed, f"we said {said_here!r}"
        code, said = verify(tmp_path, of.certificate, root.certificate)
        assert (code == 0) == allowed, f"OpenSSL said {said}"


def test_an_excluded_name_is_not_reached_by_a_wildcard_or_an_unknown_host() -> None:
    root = made("R", constraints=(None, [DNS("a.example"), URI("b.example")]))
    assert "may not certify the name *.example" in ours(leaf(root, "x", DNS("*.example")), anchor=root)
    assert "may not certify the name urn:x" in ours(leaf(root, "x", URI("urn:x")), anchor=root)
    assert "may not certify the name https://[" in ours(leaf(root, "x", URI("https://[")), anchor=root)


def test_every_authority_of_the_path_must_permit() -> None:
    root = made("R", constraints=([DNS("example")], None))
    own = made("O", root, constraints=([DNS("a.example")], [DNS("b.a.example")]))
    answers = {
        host: ours(leaf(own, "x", DNS(host)), own, anchor=root)
        for host in ("x.a.example", "c.example", "b.a.example", "org")
    }
    assert [host for host, said in answers.items() if not said] == ["x.a.example"]
    assert "CN=O may" in answers["c.example"]
    assert "CN=R may" in answers["org"] or "CN=O may" in answers["org"]


GOOD = [each.certificate.public_bytes(Encoding.DER) for each in (leaf(OWN, "x", DNS("a.example")), OWN, MIDDLE)]


@settings(max_examples=300)
@given(st.data())
def test_any_chain_is_accepted_or_refused(data: st.DataObject) -> None:
    """Whatever is damaged: a Refusal, or a path in which every signature holds."""
    damaged = [bytearray(each) for each in GOOD]
    for _ in range(data.draw(st.integers(1, 3))):
        victim = damaged[data.draw(st.integers(0, 2))]
        victim[data.draw(st.integers(0, 9_999)) % len(victim)] = data.draw(st.integers(0, 255))
    try:
        first, *pool = (x509.load_der_x509_certificate(bytes(each)) for each in damaged)
    except (ValueError, UserWarning):
        return
    path = outcome(chain.verify_leaf, first, [ROOT.certificate], NOW, pool=pool, profile=Profile.DEVICE)
    if isinstance(path, Refusal):
        assert path.reason is Reason.MALFORMED
    else:
        for below, above in zip([first, *path], path, strict=False):
            below.verify_directly_issued_by(above)
