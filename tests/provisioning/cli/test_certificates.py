from dataclasses import replace
from datetime import timedelta

import pytest

from provisioning import settings as settings_module
from provisioning.cli import certificates
from provisioning.cli.run import Failure
from provisioning.model.certificate import Authority, Certificate, Profile, Status
from provisioning.model.refusal import Reason, Refusal
from tests.certificates import NOW, days

AUTHORITY = Authority(
    name="acme", generation=2, certificate=b"", key_type="p256", has_key=True, serial="1", subject="CN=x",
    not_before=NOW - days(1), not_after=NOW + days(1),
)  # fmt: skip
CERTIFICATE = Certificate(
    authority_id=7, serial="1", fingerprint="", der=b"", profile=Profile.DEVICE, cn="", not_before=NOW - days(1),
    not_after=NOW + days(1),
)  # fmt: skip


@pytest.mark.parametrize(
    ("refusal", "said"),
    [
        (Refusal(Reason.ILLEGAL_TRANSITION, state="held", step="hold"), "thing is held already"),
        (Refusal(Reason.ILLEGAL_TRANSITION, state="revoked", step="hold"), "thing is revoked: cannot hold"),
        (Refusal(Reason.ILLEGAL_TRANSITION, authority="a-b/3", state="retired", step="issue"),
         "authority a-b-3 is retired: cannot issue"),
        (Refusal(Reason.ILLEGAL_TRANSITION, authority="CN=x/y", state="expired", step="issue"),
         "authority CN=x/y is expired: cannot issue"),
        (Refusal(Reason.UNKNOWN, authority="a/3"), "there is no authority a-3"),
        (Refusal(Reason.IN_USE, rule="it is the default"), "thing cannot go: it is the default"),
        (Refusal(Reason.DUPLICATE, field="certificate"), "this certificate is known already"),
        (Refusal(Reason.DUPLICATE, field="device"), ""),
        (Refusal(Reason.MALFORMED, field="csr", rule="is odd"), ""),
        (Refusal(Reason.UNKNOWN, product="pk"), ""),
    ],
)  # fmt: skip
def test_words(refusal: Refusal, said: str) -> None:
    assert certificates.words(refusal, "thing") == said
    with pytest.raises(Failure if said else Refusal), certificates.about("thing"):
        raise refusal


@pytest.mark.parametrize("name", ["a-1", "acme-22", "a-b-0"])
def test_a_name_that_reads_as_a_generation(name: str) -> None:
    with pytest.raises(Failure, match="would read as a generation"):
        certificates.check_new_name(name)


def test_other_names() -> None:
    for name in ("a", "a-b", "a1", "1", "a-1b"):
        certificates.check_new_name(name)


@pytest.mark.parametrize(
    ("changes", "state"),
    [
        ({}, "valid"),
        ({"retired_at": NOW}, "retired"),
        ({"retired_at": NOW, "not_after": NOW}, "expired"),
        ({"not_before": NOW + timedelta(seconds=1)}, "not yet valid"),
        ({"distrusted_at": NOW, "retired_at": NOW, "not_after": NOW}, "distrusted"),
    ],
)
def test_how_an_authority_stands(changes: dict[str, object], state: str) -> None:
    assert certificates.standing(replace(AUTHORITY, **changes), NOW) == state  # type: ignore[arg-type]


def test_the_state_of_a_certificate() -> None:
    assert certificates.state(CERTIFICATE, NOW) == "valid"
    assert certificates.state(CERTIFICATE, NOW + days(1)) == "expired"
    assert certificates.state(replace(CERTIFICATE, status=Status.REVOKED), NOW + days(1)) == "revoked"


@pytest.mark.parametrize(
    ("settings", "base"),
    [
        ({}, "http://127.0.0.1:8080"),
        ({"http": {"host": "::1", "port": 81}}, "http://[::1]:81"),
        ({"http": {"port": 0}}, ""),
        ({"endpoints": {"hurl": "https://gw.example"}}, "https://gw.example"),
        ({"endpoints": {"hurl": "https://gw.example"}, "pki": {"url": "http://pki.example/"}}, "http://pki.example"),
    ],
)
def test_where_devices_find_what_is_published(settings: dict[str, object], base: str) -> None:
    loaded = settings_module.load(**settings)
    assert certificates.base_address(loaded) == base
    urls = certificates.addresses(loaded, AUTHORITY)
    assert urls.crl == (f"{base}/pki/acme-2/crl.der" if base else "")
    assert urls.ocsp == (f"{base}/pki/acme-2/ocsp" if base else "")
    assert urls.ca == (f"{base}/pki/acme-2/ca.der" if base else "")
