"""Keys, requests and authorities for tests, made once."""

import warnings
from datetime import UTC, datetime
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

from provisioning.core import pki, signing
from provisioning.core.pki import KeyType
from provisioning.core.signing import Issuer, Urls
from provisioning.model.certificate import Profile
from provisioning.model.refusal import Refusal

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
TODAY = datetime.now(UTC).replace(microsecond=0)  # what OpenSSL judges must be valid by its clock
KEYS = {kind: pki.new_key(kind) for kind in (KeyType.P256, KeyType.P384, KeyType.RSA2048)}
KEY = KEYS[KeyType.P256]
WEAK = rsa.generate_private_key(65_537, 1024)
PEM, DER = serialization.Encoding.PEM, serialization.Encoding.DER
URLS = Urls(crl="http://pki.example/c.crl", ocsp="http://pki.example/ocsp", ca="http://pki.example/c.cer")


def issuer_of(key: Any = KEY, *, now: datetime = NOW, **more: Any) -> Issuer:
    wanted = {"years": 10, "serial": 7} | more
    return Issuer(signing.make_authority(pki.make_subject("Test CA", "Example"), key, now=now, **wanted), key)


def csr_of(
    key: Any = KEY,
    subject: x509.Name | None = None,
    names: tuple[x509.GeneralName, ...] = (),
    digest: Any = hashes.SHA256,
) -> x509.CertificateSigningRequest:
    builder = x509.CertificateSigningRequestBuilder().subject_name(subject or pki.make_subject("device-1", "Example"))
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return builder.sign(key, digest() if digest else None)


def refusal(call: Any, *arguments: Any, **more: Any) -> Refusal:
    with pytest.raises(Refusal) as caught:
        call(*arguments, **more)
    return caught.value


def raw_name(*pairs: tuple[x509.ObjectIdentifier, str]) -> x509.Name:
    """A name that cryptography would not make."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return x509.Name([x509.NameAttribute(oid, value, _validate=False) for oid, value in pairs])


def raw_dns(value: str) -> x509.DNSName:
    """As a request may bring it."""
    return x509.DNSName._init_without_validation(value)


CN, ORGANIZATION, DC = NameOID.COMMON_NAME, NameOID.ORGANIZATION_NAME, NameOID.DOMAIN_COMPONENT
# --- leaves ----------------------------------------------------------------------------------------------------------


def leaf_of(issuer: Issuer, **more: Any) -> x509.Certificate:
    wanted: dict[str, Any] = {"profile": Profile.DEVICE, "now": NOW, "days": 365, "serial": 99} | more
    return signing.issue(
        issuer, wanted.pop("key", KEY).public_key(), wanted.pop("subject", pki.make_subject("device-1")), **wanted
    )
