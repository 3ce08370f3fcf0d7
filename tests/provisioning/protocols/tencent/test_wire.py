import base64
import hashlib
import hmac
import json
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provisioning.model.refusal import Reason, Refusal
from provisioning.protocols.tencent import wire
from tests.conftest import ROOT
from tests.registrants import PRODUCT_ID, PRODUCT_SECRET, body_of, legacy_body, signed

VECTORS: dict[str, list[dict[str, Any]]] = json.loads((ROOT / "tests" / "vectors.json").read_text("utf-8"))["tencent"]
NOW = 1_700_000_000
HOST = "ap-guangzhou.gateway.tencentdevices.com"


def vectors(operation: str) -> Any:
    return pytest.mark.parametrize("vector", VECTORS[operation], ids=lambda vector: str(vector["name"]))


def headers_of(fields: dict[str, str]) -> Callable[[str], Sequence[str]]:
    lower = {name.lower(): value for name, value in fields.items()}
    return lambda name: [lower[name.lower()]] if name.lower() in lower else []


def read(body: bytes, fields: dict[str, str], *, path: str = "/device/register", **more: Any) -> wire.Register:
    return wire.read_register(headers_of({"Host": HOST} | fields), path, body, now=NOW, **more)


def refused(body: bytes, fields: dict[str, str]) -> tuple[Reason, object]:
    with pytest.raises(Refusal) as caught:
        read(body, fields)
    return caught.value.reason, caught.value.detail["field"]


BODY = body_of("xyz")
SIGNED = signed(BODY, timestamp=NOW, nonce=5456)


# --- signatures ---


@vectors("register_signature")
def test_signatures_of_the_vectors_hold(vector: dict[str, Any]) -> None:
    inputs, expected = vector["inputs"], vector["expected"]
    claim = wire.read_register(
        headers_of({
            "Host": inputs["host"], "Content-Type": "application/json", "X-TC-Algorithm": inputs["algorithm"],
            "X-TC-Timestamp": str(inputs["timestamp"]), "X-TC-Nonce": str(inputs["nonce"]),
            "X-TC-Signature": expected["X-TC-Signature"],
        }),
        inputs["path"], inputs["body"].encode(), now=NOW,
    )  # fmt: skip
    assert expected["string_to_sign"] in list(claim.strings())
    assert wire.sign(inputs["productSecret"], expected["string_to_sign"], claim.digest) == expected["X-TC-Signature"]
    assert claim.proven_by(inputs["productSecret"])
    assert not claim.proven_by(inputs["productSecret"] + "x")


@pytest.mark.parametrize(
    ("asked", "signed_host"),
    [
        ("iot.example.net:8080", "iot.example.net"),
        ("iot.example.net:8080", "iot.example.net:8080"),
        ("iot.example.net", "iot.example.net"),
        ("[2001:db8::1]:8080", "[2001:db8::1]"),
        ("10.0.0.1:80", "old.example.net"),
        *(("10.0.0.1:80", name) for name in wire.VENDOR_HOSTS),
    ],
)
def test_hosts_that_clients_sign(asked: str, signed_host: str) -> None:
    fields = signed(BODY, host=signed_host, timestamp=NOW)
    assert read(BODY, {"Host": asked} | fields, aliases=["old.example.net"]).proven_by(PRODUCT_SECRET)


def test_another_host_does_not_do() -> None:
    fields = signed(BODY, host="else.example.net", timestamp=NOW)
    assert not read(BODY, {"Host": "iot.example.net"} | fields).proven_by(PRODUCT_SECRET)


@pytest.mark.parametrize("path", ["/device/register", "/behind/a/proxy/device/register"])
def test_paths_that_clients_sign(path: str) -> None:
    fields = signed(BODY, path=path, timestamp=NOW)
    assert read(BODY, fields, path="/behind/a/proxy/device/register").proven_by(PRODUCT_SECRET)
    assert read(BODY, fields).proven_by(PRODUCT_SECRET) == (path == "/device/register")


@pytest.mark.parametrize("body_hash", ["sha1", "sha256"])
def test_with_sha1_the_body_has_either_hash(body_hash: str) -> None:
    fields = signed(BODY, algorithm="hmacsha1", body_hash=body_hash, timestamp=NOW)
    assert read(BODY, fields).proven_by(PRODUCT_SECRET)


def test_with_sha256_the_body_has_that_one() -> None:
    assert not read(BODY, signed(BODY, body_hash="sha1", timestamp=NOW)).proven_by(PRODUCT_SECRET)


@pytest.mark.parametrize("sent", ["HmacSha256", "HMACSHA256", "hmacsha256"])
@pytest.mark.parametrize("spelt", ["as sent", "hmacsha256"])
def test_the_algorithm_is_signed_as_sent_or_in_lower_case(sent: str, spelt: str) -> None:
    fields = signed(BODY, algorithm=sent if spelt == "as sent" else spelt, timestamp=NOW) | {"X-TC-Algorithm": sent}
    assert read(BODY, fields).proven_by(PRODUCT_SECRET)


@pytest.mark.parametrize("algorithm", ["hmacsha256", "hmacsha1"])
@pytest.mark.parametrize(
    "write", [bytes.hex, lambda raw: raw.hex().upper(), lambda raw: base64.b64encode(raw).decode()]
)
def test_a_signature_is_base64_or_hex(algorithm: str, write: Callable[[bytes], str]) -> None:
    fields = signed(BODY, algorithm=algorithm, timestamp=NOW)
    fields["X-TC-Signature"] = write(base64.b64decode(fields["X-TC-Signature"]))
    assert read(BODY, fields).proven_by(PRODUCT_SECRET)


@pytest.mark.parametrize("signature", ["x", "****", "A" * 64, "=", "ä", "AAAA", "\udcff" * 40])
def test_what_is_no_signature_proves_nothing(signature: str) -> None:
    assert not read(BODY, SIGNED | {"X-TC-Signature": signature}).proven_by(PRODUCT_SECRET)


def test_the_body_counts_as_it_was_received() -> None:
    other = b'{ "DeviceName": "xyz", "ProductId": "ASJ2KF9GX1" }'
    assert read(other, signed(other, timestamp=NOW)).proven_by(PRODUCT_SECRET)
    assert not read(other, SIGNED).proven_by(PRODUCT_SECRET)


def test_an_unknown_secret_costs_as_much_as_a_wrong_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every string that may have been signed is tried in either case."""
    tried: list[str] = []
    digest = hmac.digest

    def counted(key: bytes, text: bytes, name: str) -> bytes:
        tried.append(name)
        return digest(key, text, name)

    monkeypatch.setattr(hmac, "digest", counted)
    claim = read(BODY, signed(BODY, secret="another", timestamp=NOW))
    assert not claim.proven_by(PRODUCT_SECRET)
    once = len(tried)
    assert once == len(list(claim.strings()))
    assert not claim.proven_by("what stands for a secret that is not there")
    assert len(tried) == 2 * once


# --- fields ---


def test_a_registration_is_read() -> None:
    claim = read(body_of("xyz", EncryptionType=1, ClientCert="PEM"), SIGNED)
    assert (claim.product, claim.device, claim.timestamp, claim.nonce) == (PRODUCT_ID, "xyz", NOW, 5456)
    assert (claim.encryption, claim.certificate) == (1, "PEM")
    assert claim.proof == (PRODUCT_ID, "xyz", NOW, 5456)


@pytest.mark.parametrize("name", ["Content-Type", "X-TC-Algorithm", "X-TC-Timestamp", "X-TC-Nonce", "X-TC-Signature"])
def test_an_absent_or_empty_header_is_missing(name: str) -> None:
    assert refused(BODY, {key: value for key, value in SIGNED.items() if key != name}) == (Reason.MISSING, name)
    assert refused(BODY, SIGNED | {name: " "}) == (Reason.MISSING, name)


def test_headers_in_any_case() -> None:
    assert read(BODY, {name.lower(): value for name, value in SIGNED.items()}).proven_by(PRODUCT_SECRET)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("X-TC-Algorithm", "hmacmd5"), ("X-TC-Algorithm", "sha256"), ("X-TC-Timestamp", "now"),
        ("X-TC-Timestamp", "-1"), ("X-TC-Timestamp", "1" * 13), ("X-TC-Timestamp", "1.5"), ("X-TC-Timestamp", "١٢٣"),
        ("X-TC-Nonce", "-1"), ("X-TC-Nonce", str(2**31)), ("X-TC-Nonce", "5" * 40), ("X-TC-Nonce", "x"),
    ],
)  # fmt: skip
def test_a_malformed_header_is_invalid(name: str, value: str) -> None:
    assert refused(BODY, SIGNED | {name: value}) == (Reason.MALFORMED, name)


@pytest.mark.parametrize("name", ["X-TC-Algorithm", "X-TC-Timestamp", "X-TC-Nonce", "X-TC-Signature"])
def test_a_header_twice_is_invalid(name: str) -> None:
    once = headers_of(SIGNED)
    with pytest.raises(Refusal) as caught:
        wire.read_register(lambda key: [*once(key), *(["1"] if key == name else [])], "/", BODY, now=NOW)
    assert (caught.value.reason, caught.value.detail["field"]) == (Reason.MALFORMED, name)


@pytest.mark.parametrize("nonce", ["0", str(2**31 - 1)])
def test_the_ends_of_the_nonces_range(nonce: str) -> None:
    assert read(BODY, SIGNED | {"X-TC-Nonce": nonce}).nonce == int(nonce)


@pytest.mark.parametrize("value", ["application/json", "application/json;charset=gbk", "Application/JSON; charset=x"])
def test_json_has_any_charset(value: str) -> None:
    assert read(BODY, SIGNED | {"Content-Type": value})


def test_another_media_type_is_refused() -> None:
    assert refused(BODY, SIGNED | {"Content-Type": "text/plain"}) == (Reason.UNSUPPORTED_MEDIA_TYPE, "Content-Type")


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"null", b'"x"', b"\xff", b'{"ProductId":"a","ProductId":"b"}', b"[" * 9_999]
)
def test_a_body_that_is_no_object_is_missing(body: bytes) -> None:
    assert refused(body, SIGNED) == (Reason.MISSING, "body")


@pytest.mark.parametrize("name", ["ProductId", "DeviceName"])
@pytest.mark.parametrize("value", [None, "", "ä", "a b", "x" * 49, 5, True, [], {}])
def test_names_of_the_body(name: str, value: object) -> None:
    fields = {"ProductId": "P", "DeviceName": "d"} | {name: value}
    reason = Reason.MISSING if value is None else Reason.MALFORMED
    assert refused(json.dumps(fields).encode(), SIGNED) == (reason, name)


@pytest.mark.parametrize("name", ["ProductId", "DeviceName"])
def test_an_absent_name_is_missing(name: str) -> None:
    fields = {"ProductId": "P", "DeviceName": "d"}
    del fields[name]
    assert refused(json.dumps(fields).encode(), SIGNED) == (Reason.MISSING, name)


def test_the_longest_names() -> None:
    claim = read(body_of("a:_-Z9" * 8, "P_9" * 10 + "xx"), SIGNED)
    assert (len(claim.product), len(claim.device)) == (32, 48)


@pytest.mark.parametrize("value", ["1", 0, 3, True, 1.0, []])
def test_a_malformed_encryption_type(value: object) -> None:
    assert refused(body_of(EncryptionType=value), SIGNED) == (Reason.MALFORMED, "EncryptionType")


@pytest.mark.parametrize("value", ["", "ä", 5, "x" * 8_193, {}])
def test_a_malformed_certificate(value: object) -> None:
    assert refused(body_of(EncryptionType=1, ClientCert=value), SIGNED) == (Reason.MALFORMED, "ClientCert")


def test_a_certificate_for_a_key_is_a_contradiction() -> None:
    assert refused(body_of(EncryptionType=2, ClientCert="PEM"), SIGNED) == (Reason.MALFORMED, "EncryptionType")


@pytest.mark.parametrize(
    ("off", "window", "fresh"), [(300, 300, True), (301, 300, False), (-301, 300, False), (10**9, 0, True)]
)
def test_freshness(off: int, window: int, *, fresh: bool) -> None:
    assert read(BODY, signed(BODY, timestamp=NOW - off)).is_fresh(window) is fresh


@pytest.mark.parametrize(
    ("names", "body", "mine"),
    [
        (["Host", "x-tc-nonce"], {}, True),
        (["X-TC-Signature"], None, True),
        (["Host"], {"ProductId": None}, True),
        (["Host", "X-TCP"], {"productId": "x"}, False),
        ([], [], False),
    ],
)
def test_is_mine(names: list[str], body: object, *, mine: bool) -> None:
    assert wire.is_mine(names, body) is mine


# --- older firmware ---


@vectors("legacy_register_signature")
def test_legacy_signatures_of_the_vectors(vector: dict[str, Any]) -> None:
    inputs, expected = vector["inputs"], vector["expected"]
    made = wire.legacy_signature(
        inputs["productId"], inputs["deviceName"], inputs["timestamp"], inputs["nonce"], inputs["productSecret"]
    )
    if "signature" in expected:
        assert made == expected["signature"]
    names = ("deviceName", "nonce", "productId", "timestamp")
    body = json.dumps({name: inputs[name] for name in names} | {"signature": made}).encode()
    claim = wire.read_legacy(body, now=NOW)
    assert claim.proven_by(inputs["productSecret"])
    assert not claim.proven_by("another")


def test_the_raw_digest_is_a_wrong_client() -> None:
    text = f"deviceName=xyz&nonce=5456&productId={PRODUCT_ID}&timestamp={NOW}"
    raw = base64.b64encode(hmac.new(PRODUCT_SECRET.encode(), text.encode(), hashlib.sha1).digest()).decode()
    claim = wire.read_legacy(legacy_body("xyz", nonce=5456, timestamp=NOW, signature=raw), now=NOW)
    assert not claim.proven_by(PRODUCT_SECRET)
    assert wire.read_legacy(legacy_body("xyz", nonce=5456, timestamp=NOW), now=NOW).proven_by(PRODUCT_SECRET)


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("productId", None, Reason.MISSING), ("deviceName", None, Reason.MISSING), ("nonce", None, Reason.MISSING),
        ("timestamp", None, Reason.MISSING), ("signature", None, Reason.MISSING), ("signature", "", Reason.MISSING),
        ("productId", 5, Reason.MALFORMED), ("deviceName", "a b", Reason.MALFORMED), ("nonce", "5", Reason.MALFORMED),
        ("nonce", -1, Reason.MALFORMED), ("nonce", 2**31, Reason.MALFORMED), ("nonce", True, Reason.MALFORMED),
        ("timestamp", 1.5, Reason.MALFORMED), ("timestamp", 10**12, Reason.MALFORMED),
        ("signature", 5, Reason.MALFORMED),
    ],
)  # fmt: skip
def test_fields_of_older_firmware(name: str, value: Any, reason: Reason) -> None:
    with pytest.raises(Refusal) as caught:
        wire.read_legacy(legacy_body(**{name: value}), now=NOW)
    assert (caught.value.reason, caught.value.detail["field"]) == (reason, name)


# --- any input ---

TEXTS = st.text(max_size=80)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)
FIELDS = st.fixed_dictionaries({}, optional={
    name: JSON | st.just("P")
    for name in ("ProductId", "DeviceName", "EncryptionType", "ClientCert", "productId", "deviceName", "nonce",
                 "timestamp", "signature")
})  # fmt: skip
HEADERS = st.fixed_dictionaries({}, optional={
    name: TEXTS | st.sampled_from(["application/json", "hmacsha256", "5", str(NOW)])
    for name in ("Host", "Content-Type", "X-TC-Algorithm", "X-TC-Timestamp", "X-TC-Nonce", "X-TC-Signature")
})  # fmt: skip


def read_or_refused(read: Callable[[], wire.Register | wire.LegacyRegister]) -> None:
    """Nothing that is made up proves anything; a refusal names the field."""
    try:
        field: object = ""
        proven, reason = read().proven_by(PRODUCT_SECRET), Reason.MISSING
    except Refusal as refusal:
        proven, reason, field = False, refusal.reason, refusal.detail["field"]
    assert not proven
    assert reason in {Reason.MISSING, Reason.MALFORMED, Reason.UNSUPPORTED_MEDIA_TYPE}
    assert isinstance(field, str)


@given(st.binary(max_size=200) | FIELDS.map(lambda fields: json.dumps(fields).encode()), HEADERS, TEXTS)
def test_any_registration_is_read_or_refused(body: bytes, fields: dict[str, str], path: str) -> None:
    read_or_refused(lambda: wire.read_register(headers_of(fields), path, body, now=NOW))


@given(st.fixed_dictionaries({
    "Host": st.text(st.characters(codec="utf-8") | st.characters(min_codepoint=0xDC80, max_codepoint=0xDCFF)),
    "X-TC-Signature": st.text(st.characters(codec="utf-8") | st.characters(min_codepoint=0xDC80, max_codepoint=0xDCFF)),
}))  # fmt: skip
def test_header_values_that_are_no_text_prove_nothing(fields: dict[str, str]) -> None:
    """The HTTP library hands on bytes that are not UTF-8 as lone surrogates."""
    if fields["X-TC-Signature"].strip():
        assert not read(BODY, SIGNED | fields).proven_by(PRODUCT_SECRET)


@given(st.binary(max_size=200) | FIELDS.map(lambda fields: json.dumps(fields).encode()))
def test_any_body_of_older_firmware_is_read_or_refused(body: bytes) -> None:
    read_or_refused(lambda: wire.read_legacy(body, now=NOW))
