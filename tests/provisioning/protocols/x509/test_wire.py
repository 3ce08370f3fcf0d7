"""provisioning/protocols/x509/wire.py"""

import base64
import string
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from provisioning.core.signing import Urls
from provisioning.model.certificate import Authority
from provisioning.model.refusal import Reason, Refusal
from provisioning.protocols.x509 import wire
from tests.certificates import NOW, days
from tests.openssl import made, openssl, outcome


def authority(name: str = "gatehouse", generation: int = 1) -> Authority:
    return Authority(
        name=name, generation=generation, certificate=b"", key_type="p256", has_key=True, serial="1", subject="CN=x",
        not_before=NOW, not_after=NOW + days(1),
    )  # fmt: skip


def test_addresses() -> None:
    found = wire.urls("http://pki.example:8080", authority())
    assert found.crl == "http://pki.example:8080/pki/gatehouse-1/crl.der"
    assert found.ocsp == "http://pki.example:8080/pki/gatehouse-1/ocsp"
    assert found.ca == "http://pki.example:8080/pki/gatehouse-1/ca.der"
    assert wire.urls("http://pki.example:8080/", authority()) == found
    assert wire.urls("", authority()) == Urls()


@given(st.text(string.ascii_lowercase + string.digits + "-", max_size=39), st.integers(1, 999_999_999))
def test_an_authority_is_found_by_its_address(rest: str, generation: int) -> None:
    its = authority(f"a{rest}", generation)
    assert wire.read_authority(wire.write_authority(its)) == (its.name, its.generation)


@given(st.text())
@example("gatehouse-0")
@example("gatehouse-1\n")
@example("gatehouse-٣")
@example("a-" + "9" * 10)
@example("-1")
def test_any_authority_is_read_or_refused(text: str) -> None:
    found = outcome(wire.read_authority, text)
    if isinstance(found, Refusal):
        assert found.reason is Reason.UNKNOWN
    else:
        assert text == f"{found[0]}-{found[1]}"
        assert 0 < found[1] < 2**31


def basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


@given(st.text(st.characters(exclude_characters=":", codec="utf-8")), st.text(st.characters(codec="utf-8")))
def test_a_user_and_a_password_are_read(user: str, password: str) -> None:
    assert wire.read_basic(basic(user, password)) == (user, password)
    assert wire.read_basic(basic(user, password).replace("Basic", "bAsIc ")) == (user, password)


@given(st.one_of(st.text(), st.text().map("Basic {}".format), st.binary().map(lambda raw: f"Basic {raw.hex()}")))
@example("Basic")
@example("Basic " + base64.b64encode(b"no colon").decode())
@example("Basic " + base64.b64encode(b"\xff:\xff").decode())
@example("Bearer eDp5")
@example("Basic eDp5=")
@example("Basic \udc80")
def test_any_authorization_is_read_or_is_none(header: str) -> None:
    found = wire.read_basic(header)
    assert found is None or all(isinstance(each, str) for each in found)


def test_certificates_alone(tmp_path: Path) -> None:
    one, two = made("one").certificate, made("two").certificate
    (tmp_path / "p7.b64").write_bytes(wire.write_certs_only([one, two, one]))
    assert max(map(len, (tmp_path / "p7.b64").read_text().splitlines())) <= 76
    (tmp_path / "p7.der").write_bytes(base64.b64decode((tmp_path / "p7.b64").read_bytes()))
    said = openssl("pkcs7", "-inform", "DER", "-in", tmp_path / "p7.der", "-print_certs", "-noout")
    assert said.count("subject=CN = one") == 1
    assert said.count("subject=CN = two") == 1


def test_the_table_of_refusals_is_total() -> None:
    assert set(wire.REFUSALS) == set(Reason)


@pytest.mark.parametrize("reason", Reason)
@pytest.mark.parametrize(
    "detail",
    [
        {},
        {"field": "csr"},
        {"field": "csr", "rule": "has {braces}"},
        {"authority": "x/1", "state": "retired", "step": "issue"},
        {"certificate": "1f"},
        {"limit": 5},
    ],
)
def test_each_refusal_has_words(reason: Reason, detail: dict[str, Any]) -> None:
    status, words = wire.write_error(Refusal(reason, **detail))
    assert 400 <= status < 600
    assert words.strip()
    assert words.endswith("\n")


def test_words() -> None:
    def said(reason: Reason, **detail: object) -> tuple[int, str]:
        return wire.write_error(Refusal(reason, **detail))

    assert said(Reason.UNKNOWN, authority="x/1") == (404, "there is no such authority here\n")
    assert said(Reason.MALFORMED, field="csr", rule="has more than 5 bytes") == (400, "csr has more than 5 bytes\n")
    assert said(Reason.ILLEGAL_TRANSITION, authority="x/1", state="retired", step="issue") == (
        409,
        "the authority is retired and cannot issue\n",
    )
    assert said(Reason.ILLEGAL_TRANSITION, state="revoked", step="renew")[1] == (
        "the certificate is revoked and cannot renew\n"
    )
