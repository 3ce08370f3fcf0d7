"""Every vector and field rule of the EnOS contract, both ways where there are two; any input is read or refused."""

import json
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from provisioning.model.identity import Identity
from provisioning.model.lifecycle import State
from provisioning.model.mqtt import Connect
from provisioning.model.refusal import Reason, Refusal
from provisioning.model.registry import Device
from provisioning.protocols.enos import dps_wire, mqtt_wire, wire
from provisioning.protocols.enos.mqtt import Enos
from provisioning.sections import Enos as Settings
from tests.conftest import ROOT
from tests.devices import bootstrap_body, get_conn_proof

VECTORS: dict[str, list[dict[str, Any]]] = json.loads((ROOT / "tests" / "vectors.json").read_text("utf-8"))["enos"]
NOW = 1_649_147_455_506
IDENTITY = Identity("enos", "pk1", "dk1")
POST = "/sys/pk1/dk1/thing/measurepoint/post"


def vectors(operation: str) -> Any:
    """Parametrise by the vectors of an operation, each under its own name."""
    rows = [pytest.param(each["inputs"], each["expected"], id=each["name"]) for each in VECTORS[operation]]
    return pytest.mark.parametrize(("inputs", "expected"), rows)


def test_no_operation_of_the_vectors_is_left_out() -> None:
    assert set(VECTORS) == {
        "mqtt_password", "mqtt_content", "mqtt_client_id_parse", "dps_sign", "get_conn_sign", "http_auth_sign",
        "sub_device_sign", "activate_info_payload",
    }  # fmt: skip


# --- vectors: the one recipe ---


def client_id_of(inputs: dict[str, Any]) -> mqtt_wire.ClientId:
    return mqtt_wire.ClientId(inputs["clientId"], str(inputs["securemode"]), inputs["signmethod"], inputs["timestamp"])


@vectors("mqtt_password")
def test_mqtt_login_is_written(inputs: dict[str, Any], expected: dict[str, str]) -> None:
    client_id = client_id_of(inputs)
    assert mqtt_wire.write_client_id(client_id) == expected["mqttClientId"]
    password = mqtt_wire.mqtt_password(client_id, inputs["deviceKey"], inputs["productKey"], inputs["secret"])
    assert password == expected["mqttPassword"].upper()
    assert expected["mqttPassword"] == (password.lower() if inputs["case_sent"] == "lower" else password)


@vectors("mqtt_password")
def test_mqtt_login_is_proven_by_its_own_secret_alone(inputs: dict[str, Any], expected: dict[str, str]) -> None:
    claim = Enos(Settings()).read_connect(connect_of(expected))
    assert isinstance(claim, mqtt_wire.MqttClaim)
    assert claim.identity == Identity("enos", inputs["productKey"], inputs["deviceKey"])
    assert claim.client_id == client_id_of(inputs)
    assert str(claim.means) == ("device" if inputs["securemode"] == 2 else "product")
    secret = inputs["secret"]
    assert claim.proven_by(secret)
    others = {each["inputs"]["secret"] for each in VECTORS["mqtt_password"]} - {secret}
    for other in {*others, "", secret.upper(), secret[:-1], f"{secret} "}:
        assert not claim.proven_by(other), f"proven by {other!r} as well"


def connect_of(login: dict[str, str]) -> Connect:
    return Connect(
        level=4, client_id=login["mqttClientId"], username=login["mqttUsername"],
        password=login["mqttPassword"].encode(), clean=True, keepalive=60,
    )  # fmt: skip


@vectors("mqtt_content")
def test_content_that_is_signed(inputs: dict[str, str], expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What goes into the hash is visible in the seed: an identity "hash" brings it to light."""

    class Shown:
        def __init__(self, data: bytes) -> None:
            self.hexdigest = data.decode

    monkeypatch.setattr(wire, "DIGESTS", {"sha256": Shown})
    secret = inputs.pop("secret", "")
    assert wire.sign("sha256", secret, **inputs) == expected


@vectors("mqtt_client_id_parse")
def test_client_id_is_read(inputs: dict[str, str], expected: dict[str, Any]) -> None:
    read = mqtt_wire.read_client_id(inputs["mqttClientId"])
    assert (read.client_id, read.length_counted) == (expected["clientId"], expected["length_counted"])
    assert (read.securemode, read.signmethod, read.timestamp) == tuple(
        expected[name] for name in ("securemode", "signmethod", "timestamp")
    )
    assert mqtt_wire.read_client_id(mqtt_wire.write_client_id(read)) == read


@vectors("dps_sign")
def test_dps_signature(inputs: dict[str, Any], expected: str) -> None:
    serial, at, password = inputs["sn"], inputs["timestamp"], inputs["groupPassword"]
    assert wire.sign("sha256", password, sn=serial, timestamp=str(at)) == expected
    for sent in (expected, expected.upper()):
        claim = dps_wire.read_bootstrap(bootstrap_body(serial, at=at, dpsSign=sent), NOW)
        assert claim.proven_by(password)
        assert not claim.proven_by(f"{password}x")


@vectors("get_conn_sign")
def test_get_conn_signature(inputs: dict[str, Any], expected: str) -> None:
    serial, at, password = inputs["sn"], inputs["timestamp"], inputs["groupPassword"]
    proof = get_conn_proof(serial, password, at)
    assert proof["sign"] == expected
    claim = dps_wire.read_get_conn({"self": proof}, NOW).caller
    assert claim.proven_by(password)
    assert not claim.proven_by(f"{password}x")


@vectors("http_auth_sign")
def test_http_login_signature(inputs: dict[str, Any], expected: str) -> None:
    secret = inputs.pop("deviceSecret")
    params = {name: str(value) for name, value in inputs.items()}
    assert wire.sign("sha256", secret, **params) == expected


@vectors("sub_device_sign")
def test_sub_device_signature(inputs: dict[str, Any], expected: str) -> None:
    assert wire.sign(inputs["signMethod"], inputs["secret"], **inputs["params"]) == expected


@vectors("activate_info_payload")
def test_activation_payload(inputs: dict[str, str], expected: dict[str, str]) -> None:
    identity = Identity("enos", inputs["productKey"], inputs["deviceKey"])
    assert mqtt_wire.activation_topic(identity) == expected["topic"]
    assert (
        mqtt_wire.write_activation(identity, inputs["assetId"], inputs["deviceSecret"]).decode() == expected["payload"]
    )


# Section 14 as it is printed.
WORKED = [
    ("static", "123456|securemode=2,signmethod=sha256,timestamp=1548753362502|", "test&654321", "abcdefg",
     "B99032D49C706F7B27B22AB5CD2DD3C56A31E1BCBBC83BA0A2A6BB3272FBB166"),
    ("dynamic", "123|securemode=3,signmethod=sha256,timestamp=1524448722000|", "test&123", "abcdefg",
     "A4F9AD91051E3CA89440E0157029DD358C3A2C556D3C543B9FD5A38484785AC9"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("client_id", "username", "secret", "password"), [row[1:] for row in WORKED], ids=lambda v: v[:8]
)
def test_worked_logins(client_id: str, username: str, secret: str, password: str) -> None:
    for sent in (password, password.lower()):
        login = {"mqttClientId": client_id, "mqttUsername": username, "mqttPassword": sent}
        claim = Enos(Settings()).read_connect(connect_of(login))
        assert claim is not None
        assert claim.proven_by(secret)


def test_worked_signatures() -> None:
    assert wire.sign("sha256", "grpSecret", sn="SN001", timestamp="1649147455506") == (
        "b1964ee832fa321ec39d4ebb0e8394faf93a634826dbacf06465344957f15a7f"
    )
    assert wire.sign(
        "sha256", "abcdefg", deviceKey="test", productKey="654321", lifetime="300000", signMethod="sha256"
    ) == ("16404832b8978a5e6c372fecb4160dbad69f408aad5f499ee557ad826177a048")
    assert wire.sign(
        "sha256", "subSecret", clientId="theSubDeviceId", deviceKey="theSubDeviceKey", productKey="theSubProductKey",
        timestamp="1524448722000",
    ) == "06ff8212467674537237e53bb5185ab047c8d46aca994f88428511a335073f86"  # fmt: skip


def test_six_names_are_three_digests() -> None:
    """None of them is an HMAC (8.2)."""
    signed = {method: wire.sign(method, "s", a="1") for method in wire.DIGESTS}
    assert {method: len(digest) for method, digest in signed.items()} == {
        "sha256": 64, "hmacsha256": 64, "sha1": 40, "hmacsha1": 40, "md5": 32, "hmacmd5": 32,
    }  # fmt: skip
    for method in ("sha256", "sha1", "md5"):
        assert signed[method] == signed[f"hmac{method}"]


# --- bootstrap, field by field ---


def refused(read: Callable[[], object], field: str | None = None, reason: Reason = Reason.MALFORMED) -> None:
    with pytest.raises(Refusal) as caught:
        read()
    assert caught.value.reason is reason
    if field is not None:
        assert caught.value.detail["field"] == field


def test_bootstrap_is_read() -> None:
    """The sample of the vendor's page; its password is not given."""
    claim = dps_wire.read_bootstrap(
        {
            "dpsSignMethod": "sha256",
            "dpsSignTimestamp": 1649147455506,
            "dpsSign": "507db95cfff7f648cd80e67b7ced48c13d6913916348cde03ea668ca6b03927a",
            "groupId": "groupId",
            "deviceSn": "deviceSn",
            "deviceName": {"defaultValue": "abc"},
            "timezone": "+08:00",
        },
        NOW,
    )
    assert (claim.protocol, claim.group, claim.serial, claim.timestamp) == (
        "enos",
        "groupId",
        "deviceSn",
        "1649147455506",
    )
    assert claim.signature == "507db95cfff7f648cd80e67b7ced48c13d6913916348cde03ea668ca6b03927a"
    assert (claim.description.name, claim.description.name_i18n, claim.description.timezone) == ("abc", {}, "+08:00")


REQUIRED = ("deviceSn", "groupId", "dpsSignMethod", "dpsSignTimestamp", "dpsSign", "deviceName", "timezone")


@pytest.mark.parametrize("field", REQUIRED)
def test_bootstrap_field_is_missing(field: str) -> None:
    body = bootstrap_body(at=NOW)
    del body[field]
    refused(lambda: dps_wire.read_bootstrap(body, NOW), field)
    refused(lambda: dps_wire.read_bootstrap(body | {field: None}, NOW), field)


GOOD: list[tuple[str, list[object]]] = [
    ("deviceSn", ["a", "A1:_.-z", "x" * 64]),
    ("groupId", ["g", "x" * 64, "Werk 7/Süd"]),
    ("dpsSignMethod", ["sha256", "SHA256", "Sha256"]),
    ("dpsSignTimestamp", [NOW, str(NOW), 10**12, 10**13 - 1]),
    ("dpsSign", ["0" * 64, "abcdefABCDEF0123" * 4]),
    ("deviceName", ["plain", "x" * 64, {"defaultValue": "x"}, {"defaultValue": "x", "i18nValue": None},
                    {"defaultValue": "x", "i18nValue": {}}, {"defaultValue": "泵", "i18nValue": {"en_US": "Pump"}},
                    {"defaultValue": "x", "i18nValue": {f"l{chr(97 + i)}": "x" for i in range(16)}},
                    {"defaultValue": "x", "more": 1}]),
    ("timezone", ["+08:00", "-00:00", "+14:59", "-09:30", "Europe/Berlin", "UTC", "America/Argentina/Ushuaia"]),
]  # fmt: skip
BAD: list[tuple[str, list[object]]] = [
    ("deviceSn", ["", "x" * 65, "a b", "a/b", "a\n", "ä", "\ud800", "a\0", 1, True, [], {}, ["a"]]),
    ("groupId", ["", "x" * 65, "a\n", "a\0", "\x7f", "\ud800", 1, False, {}]),
    ("dpsSignMethod", ["", "md5", "sha1", "hmacsha256", "sha256 ", 256, True, {}]),
    ("dpsSignTimestamp", [0, -NOW, NOW // 1000, NOW * 10, 10**13, 10**12 - 1, 10**5000, float(NOW), True, "", f" {NOW}",
                          f"-{NOW}", str(NOW)[:-1], "164914745550\u0663", f"{NOW}.5", [NOW], {}]),
    ("dpsSign", ["", "0" * 63, "0" * 65, "g" * 64, "\u0663" * 64, 10**63, True, []]),
    ("deviceName", ["", "x" * 65, "a\0", "\ud800", 1, True, [], {}, {"defaultValue": ""}, {"defaultValue": "x" * 65},
                    {"defaultValue": 1}, {"defaultValue": None}, {"i18nValue": {"en_US": "x"}},
                    {"defaultValue": "x", "i18nValue": []}, {"defaultValue": "x", "i18nValue": "en_US"},
                    {"defaultValue": "x", "i18nValue": {"": "x"}}, {"defaultValue": "x", "i18nValue": {"en US": "x"}},
                    {"defaultValue": "x", "i18nValue": {"en_US": 1}},
                    {"defaultValue": "x", "i18nValue": {"en_US": None}},
                    {"defaultValue": "x", "i18nValue": {"en_US": "x" * 65}},
                    {"defaultValue": "x", "i18nValue": {"en_US": "\ud800"}},
                    {"defaultValue": "x", "i18nValue": {f"l{chr(97 + i)}": "x" for i in range(17)}}]),
    ("timezone", ["", "08:00", "+8:00", "+15:00", "+08:60", "+0800", "+08:00 ", "+0\u0668:00", "Mars/Olympus", "../etc",
                  "\ud800", 8, True, [], {}]),
]  # fmt: skip
COMBINED = [(field, value) for field, values in BAD for value in values]


@pytest.mark.parametrize(("field", "value"), [(field, value) for field, values in GOOD for value in values])
def test_bootstrap_field_is_taken(field: str, value: object) -> None:
    dps_wire.read_bootstrap(bootstrap_body(at=NOW) | {field: value}, NOW)


@pytest.mark.parametrize(("field", "value"), COMBINED, ids=[f"{field}-{i}" for i, (field, _) in enumerate(COMBINED)])
def test_bootstrap_field_is_refused(field: str, value: object) -> None:
    refused(lambda: dps_wire.read_bootstrap(bootstrap_body(at=NOW) | {field: value}, NOW), field)


def test_bootstrap_keeps_the_names() -> None:
    name = {"defaultValue": "泵 1", "i18nValue": {"en_US": "Pump 1", "zh_Hans_CN": "泵 1"}}
    description = dps_wire.read_bootstrap(bootstrap_body(at=NOW, deviceName=name), NOW).description
    assert (description.name, description.name_i18n) == (name["defaultValue"], name["i18nValue"])


def test_device_id_is_an_alias() -> None:
    body = bootstrap_body("SN1", at=NOW)
    del body["deviceSn"]
    assert dps_wire.read_bootstrap(body | {"deviceId": "SN1"}, NOW).serial == "SN1"
    assert dps_wire.read_bootstrap(body | {"deviceId": "SN1", "deviceSn": None}, NOW).serial == "SN1"
    assert dps_wire.read_bootstrap(body | {"deviceId": "SN1", "deviceSn": "SN1"}, NOW).serial == "SN1"
    assert dps_wire.read_bootstrap(body | {"deviceId": None, "deviceSn": "SN1"}, NOW).serial == "SN1"
    others: list[object] = ["SN2", "sn1", 1, True, [], ""]
    for other in others:
        refused(partial(dps_wire.read_bootstrap, body | {"deviceId": other, "deviceSn": "SN1"}, NOW), "deviceId")
    refused(lambda: dps_wire.read_bootstrap(body | {"deviceId": "a b"}, NOW), "deviceId")


def test_unknown_fields_are_ignored() -> None:
    dps_wire.read_bootstrap(bootstrap_body(at=NOW, extra={"a": [1]}, pk="x"), NOW)


@pytest.mark.parametrize("body", [None, True, 1, "x", [], [{}]])
def test_body_is_no_object(body: object) -> None:
    refused(lambda: dps_wire.read_bootstrap(body, NOW), "body")
    refused(lambda: dps_wire.read_get_conn(body, NOW), "body")


@pytest.mark.parametrize(
    ("seconds", "late", "fresh"),
    [(900, 0, True), (900, 900_000, True), (900, 900_001, False), (900, -900_000, True), (900, -900_001, False),
     (0, 10**12, True), (1, 1_001, False)],
)  # fmt: skip
def test_freshness(seconds: int, late: int, fresh: bool) -> None:
    claim = dps_wire.read_bootstrap(bootstrap_body(at=NOW), NOW + late)
    assert claim.is_fresh(seconds) is fresh


def test_claims_do_not_show_their_signatures() -> None:
    claim = dps_wire.read_bootstrap(bootstrap_body(at=NOW), NOW)
    assert claim.signature not in repr(claim)
    mqtt = Enos(Settings()).read_connect(connect_of(VECTORS["mqtt_password"][0]["expected"]))
    assert VECTORS["mqtt_password"][0]["expected"]["mqttPassword"] not in repr(mqtt)


# --- get/conn ---


def test_get_conn_forms() -> None:
    caller, sub = get_conn_proof("GW", at=NOW), get_conn_proof("SUB", "other", at=NOW)
    own = dps_wire.read_get_conn({"self": caller}, NOW)
    assert (own.caller.serial, own.branch, own.sub) == ("GW", None, None)
    assert dps_wire.read_get_conn({"self": caller, "sub": None, "signMethod": "SHA256"}, NOW) == own
    virtual: list[dict[str, object]] = [{}, {"createSubSnFromGw": True}, {"sn": "IGNORED"}]
    for more in virtual:
        branch = dps_wire.read_get_conn({"self": caller, "sub": {"branch": 3} | more}, NOW)
        assert (branch.branch, branch.branch_serial, branch.sub) == (3, "GW-3", None)
    for other in ({}, {"createSubSnFromGw": False}, {"createSubSnFromGw": False, "branch": 3}):
        real = dps_wire.read_get_conn({"self": caller, "sub": sub | other}, NOW)
        assert real.branch is None
        assert real.sub is not None
        assert real.sub.serial == "SUB"
        assert real.sub.proven_by("other")


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"self": None}, "self"),
        ({"self": "GW"}, "self"),
        ({"self": {}}, "self.sn"),
        ({"self": {"sn": "a b", "timestamp": NOW, "sign": "0" * 64}}, "self.sn"),
        ({"self": {"sn": "GW", "timestamp": NOW // 1000, "sign": "0" * 64}}, "self.timestamp"),
        ({"self": {"sn": "GW", "timestamp": NOW, "sign": "0" * 63}}, "self.sign"),
        ({"signMethod": "md5"}, "signMethod"),
        ({"signMethod": 1}, "signMethod"),
        ({"sub": []}, "sub"),
        ({"sub": {}}, "sub.branch"),
        ({"sub": {"createSubSnFromGw": True}}, "sub.branch"),
        ({"sub": {"createSubSnFromGw": "yes", "branch": 1}}, "sub.createSubSnFromGw"),
        ({"sub": {"createSubSnFromGw": None, "branch": 1}}, "sub.createSubSnFromGw"),
        ({"sub": {"branch": -1}}, "sub.branch"),
        ({"sub": {"branch": True}}, "sub.branch"),
        ({"sub": {"branch": 1.0}}, "sub.branch"),
        ({"sub": {"branch": "1"}}, "sub.branch"),
        ({"sub": {"branch": 2**31}}, "sub.branch"),
        ({"sub": {"branch": 10**5000}}, "sub.branch"),
        ({"sub": {"createSubSnFromGw": False, "branch": 1}}, "sub.sn"),
        ({"sub": {"sn": "SUB"}}, "sub.timestamp"),
        ({"sub": {"sn": "SUB", "timestamp": NOW}}, "sub.sign"),
        ({"sub": {"sn": None}}, "sub.sn"),
    ],
)
def test_get_conn_is_refused(change: dict[str, object], field: str) -> None:
    body: dict[str, object] = {"self": get_conn_proof("GW", at=NOW)}
    refused(lambda: dps_wire.read_get_conn(body | change, NOW), field)


def test_branch_serial_must_be_a_serial() -> None:
    body = {"self": get_conn_proof("x" * 63, at=NOW), "sub": {"branch": 1}}
    refused(lambda: dps_wire.read_get_conn(body, NOW), "sub.branch")


def test_triple_is_bare() -> None:
    device = Device(protocol="enos", state=State.ALLOCATED, product="pk1", key="dk1", secret="ds1")
    assert dps_wire.write_triple(device, "tcp://h:1", "http://h") == {
        "murl": "tcp://h:1", "hurl": "http://h", "pk": "pk1", "dk": "dk1", "ds": "ds1",
    }  # fmt: skip


# --- the tables ---


def test_tables_are_total() -> None:
    assert set(dps_wire.REFUSALS) == set(Reason)
    assert set(mqtt_wire.CONNACKS) == set(Reason)


ERRORS = [  # section 5
    (Refusal(Reason.NOT_ALLOCATED, serial="SN1"), 10000, "[SN1] not allocated", 403),
    (Refusal(Reason.MALFORMED, field="groupId"), 99400, "Invalid Argument groupId:groupId is missing", 400),
    (Refusal(Reason.MALFORMED, field="body"), 99400, "Invalid Argument body:body is missing", 400),
    (Refusal(Reason.MALFORMED, field="{serial} %s {0}"), 99400,
     "Invalid Argument {serial} %s {0}:{serial} %s {0} is missing", 400),
    (Refusal(Reason.UNSUPPORTED_MEDIA_TYPE, field="Content-Type"), 99400,
     "Invalid Argument Content-Type:Content-Type is missing", 415),
    (Refusal(Reason.TOO_LARGE, field="body", limit=1), 99400, "Invalid Argument body:body is missing", 413),
    (Refusal(Reason.UNKNOWN, group="g"), 35404, "Group/sn not found", 404),
    (Refusal(Reason.NOT_PROVEN), 35603, "Unauthorized to access the resource", 401),
    (Refusal(Reason.STALE), 35603, "Unauthorized to access the resource", 401),
    (Refusal(Reason.DUPLICATE), 35601, "Illegal deviceSn, deviceSn duplicated", 409),
    (Refusal(Reason.INTERNAL), 99500, "Internal error", 500),
    (Refusal(Reason.ILLEGAL_TRANSITION), 99500, "Internal error", 500),
    (Refusal(Reason.UNAVAILABLE), 99500, "Internal error", 503),
]  # fmt: skip


@pytest.mark.parametrize(("refusal", "code", "message", "status"), ERRORS, ids=lambda value: str(value)[:30])
def test_error_rows(refusal: Refusal, code: int, message: str, status: int) -> None:
    assert dps_wire.write_error(refusal, "id") == (
        status,
        {"code": code, "msg": message, "requestId": "id", "data": None},
    )


@pytest.mark.parametrize("reason", list(Reason))
def test_every_error_can_be_written_without_detail(reason: Reason) -> None:
    status, body = dps_wire.write_error(Refusal(reason), "id")
    assert 400 <= status < 600
    assert set(body) == {"code", "msg", "requestId", "data"}


CODES = {  # section 8.3
    Reason.MALFORMED: (2, 0x85),
    Reason.UNSUPPORTED_VERSION: (1, 0x84),
    Reason.UNAVAILABLE: (3, 0x88),
    Reason.INTERNAL: (3, 0x88),
    Reason.UNKNOWN: (4, 0x86),
    Reason.NOT_PROVEN: (4, 0x86),
    Reason.STALE: (4, 0x86),
    Reason.NOT_ALLOCATED: (4, 0x86),
    Reason.DISABLED: (5, 0x8A),
    Reason.ACTIVATION_OFF: (5, 0x87),
    Reason.ACTIVATION_SPENT: (5, 0x87),
    Reason.UNSUPPORTED: (5, 0x87),
    Reason.CERTIFICATE_REQUIRED: (5, 0x87),
    Reason.BLOCKED: (5, 0x9F),
}


@pytest.mark.parametrize("reason", list(Reason))
def test_connack_rows(reason: Reason) -> None:
    codes = mqtt_wire.CONNACKS[reason]
    assert (codes.v3, codes.v5) == CODES.get(reason, (codes.v3, codes.v5))
    assert {1: 0x84, 2: 0x85, 3: 0x88, 4: 0x86}.get(codes.v3, codes.v5) == codes.v5
    assert codes.v3 in {1, 2, 3, 4, 5}
    assert codes.v5 in {0x84, 0x85, 0x88, 0x86, 0x87, 0x8A, 0x9F}


# --- client ids ---

CLIENT_IDS = [  # both ways
    (mqtt_wire.ClientId("dk1", "2", "sha256", "17000000"), "dk1|securemode=2,signmethod=sha256,timestamp=17000000|"),
    (mqtt_wire.ClientId("pk.dk", "3", "md5", "1.5"), "pk.dk|securemode=3,signmethod=md5,timestamp=1.5|"),
    (
        mqtt_wire.ClientId("a=b,c{d=e}", "2", "hmacsha1", "x"),
        "a=b,c{d=e}|securemode=2,signmethod=hmacsha1,timestamp=x|",
    ),
    (mqtt_wire.ClientId("x" * 64, "2", "sha1", "0"), f"{'x' * 64}|securemode=2,signmethod=sha1,timestamp=0|"),
    (mqtt_wire.ClientId("泵" * 64, "2", "sha1", "0"), f"{'泵' * 64}|securemode=2,signmethod=sha1,timestamp=0|"),
    (mqtt_wire.ClientId("x" * 64 + "{" + "y" * 99 + "}", "2", "sha1", "0"),
     f"{'x' * 64}{{{'y' * 99}}}|securemode=2,signmethod=sha1,timestamp=0|"),
]  # fmt: skip


@pytest.mark.parametrize(("value", "text"), CLIENT_IDS, ids=range(len(CLIENT_IDS)))
def test_client_id_both_ways(value: mqtt_wire.ClientId, text: str) -> None:
    assert mqtt_wire.read_client_id(text) == value
    assert mqtt_wire.write_client_id(value) == text


@pytest.mark.parametrize(
    "text",
    [
        "dk1| securemode = 2 ,\tsignmethod=sha256 , timestamp = 17 |",
        "dk1|SecureMode=2,SIGNMETHOD=SHA256,TimeStamp=17|",
        "dk1|timestamp=17,signmethod=sha256,securemode=2|",
        "dk1|securemode=2,signmethod=sha256,timestamp=17,|",
        "dk1|,,securemode=2,signmethod=sha256,timestamp=17|",
        "dk1|securemode=2,signmethod=sha256,timestamp=17,lan=C,lan=D,flag,=x|",
        "dk1|securemode=2,securemode=2,signmethod=sha256,timestamp=17|",
    ],
)
def test_dialects_of_the_parameter_block(text: str) -> None:
    assert mqtt_wire.read_client_id(text) == mqtt_wire.ClientId("dk1", "2", "sha256", "17")


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("", "clientId"),
        ("dk1", "clientId"),
        ("dk1|", "clientId"),
        ("dk1|securemode=2,signmethod=sha256,timestamp=17", "clientId"),
        ("dk1|securemode=2,signmethod=sha256,timestamp=17|x", "clientId"),
        ("|securemode=2,signmethod=sha256,timestamp=17|", "clientId"),
        ("{ip=1}|securemode=2,signmethod=sha256,timestamp=17|", "clientId"),
        (f"{'x' * 65}|securemode=2,signmethod=sha256,timestamp=17|", "clientId"),
        (f"{'x' * 65}{{a}}|securemode=2,signmethod=sha256,timestamp=17|", "clientId"),
        (f"{'x' * 60}{{a}}yz|securemode=2,signmethod=sha256,timestamp=17|", "clientId"),
        ("\ud800|securemode=2,signmethod=sha256,timestamp=17|", "clientId"),
        ("dk1\0|securemode=2,signmethod=sha256,timestamp=17|", "clientId"),
        ("dk1|securemode=2,signmethod=sha256,timestamp=1\udfff|", "clientId"),
        ("dk1||", "securemode"),
        ("dk1|signmethod=sha256,timestamp=17|", "securemode"),
        ("dk1|securemode=2,timestamp=17|", "signmethod"),
        ("dk1|securemode=2,signmethod=sha256|", "timestamp"),
        ("dk1|securemode=2,signmethod=sha256,timestamp=|", "timestamp"),
        ("dk1|securemode=2,signmethod=sha256,timestamp=17,timestamp=18|", "timestamp"),
        ("dk1|securemode=1,signmethod=sha256,timestamp=17|", "securemode"),
        ("dk1|securemode=02,signmethod=sha256,timestamp=17|", "securemode"),
        ("dk1|securemode=5,signmethod=sha256,timestamp=17|", "securemode"),
        ("dk1|securemode=2,signmethod=sha512,timestamp=17|", "signmethod"),
        ("dk1|x|securemode=2,signmethod=sha256,timestamp=17|", "securemode"),
    ],
)  # fmt: skip
def test_client_id_is_refused(text: str, field: str) -> None:
    refused(lambda: mqtt_wire.read_client_id(text), field)


def test_message_integration_is_not_served() -> None:
    text = "dk1|securemode=4,signmethod=sha256,timestamp=17|"
    refused(lambda: mqtt_wire.read_client_id(text), reason=Reason.UNSUPPORTED)


# --- messages ---


def request(**change: object) -> bytes:
    body = {"id": "7", "version": "1.0", "method": "thing.measurepoint.post", "params": {"measurepoints": {"a": 1}}}
    return json.dumps(body | change).encode()


REPORTS = [
    ("measurepoint/post", "thing.measurepoint.post"),
    ("measurepoint/post/batch", "thing.measurepoint.post.batch"),
    ("measurepoint/resume", "thing.measurepoint.resume"),
    ("measurepoint/resume/batch", "thing.measurepoint.resume.batch"),
    ("event/overheated/post", "thing.event.overheated.post"),
    ("event/overheated/post", "thing.event.%s.postoverheated"),  # as the Python SDK sends it
]


@pytest.mark.parametrize(("below", "method"), REPORTS)
def test_report_is_acknowledged(below: str, method: str) -> None:
    reply = mqtt_wire.answer_report(IDENTITY, f"/sys/pk1/dk1/thing/{below}", request(method=method))
    assert reply == b'{"id":"7","code":200,"data":""}'


@pytest.mark.parametrize(
    ("payload", "reply"),
    [
        (b"", {"id": "", "code": 1251, "message": "Payload is empty"}),
        (b"{", {"id": "", "code": 1220, "message": "Payload format error"}),
        (b"\xff\xfe", {"id": "", "code": 1220, "message": "Payload format error"}),
        (b'{"id":"7",', {"id": "7", "code": 1220, "message": "Payload format error"}),
        (b"[" * 100_000, {"id": "", "code": 1220, "message": "Payload format error"}),
        (b'{"id":' + b"9" * 5_000 + b"}", {"id": "", "code": 1220, "message": "Payload format error"}),
        (b"[]", {"id": "", "code": 1220, "message": "Payload format error"}),
        (request(id=7), {"id": "", "code": 1220, "message": "Payload format error"}),
        (request(id="\ud800"), {"id": "", "code": 1220, "message": "Payload format error"}),
        (request(method=None), {"id": "7", "code": 1220, "message": "Payload format error"}),
        (request(params=None), {"id": "7", "code": 1220, "message": "Payload format error"}),
        (request(params="x"), {"id": "7", "code": 1220, "message": "Payload format error"}),
        (request(method="thing.event.x.post"), {"id": "7", "code": 1260, "message": "Methods not consistent"}),
    ],
    ids=lambda value: str(value)[:40],
)  # fmt: skip
def test_report_is_turned_down(payload: bytes, reply: dict[str, object]) -> None:
    answer = mqtt_wire.answer_report(IDENTITY, POST, payload)
    assert answer is not None
    assert json.loads(answer) == reply | {"data": ""}


@pytest.mark.parametrize("request_id", ["", "1", "x" * 1000, 'a"\\b', "泵", " 1 "])
def test_id_comes_back_unchanged(request_id: str) -> None:
    for payload in (
        request(id=request_id),
        json.dumps(json.loads(request(id=request_id)), ensure_ascii=False).encode(),
    ):
        answer = mqtt_wire.answer_report(IDENTITY, POST, payload)
        assert answer is not None
        assert json.loads(answer)["id"] == request_id


@pytest.mark.parametrize(
    "topic",
    [
        "/sys/pk1/dk2/thing/measurepoint/post", "/sys/pk1/dk1/thing/measurepoint/post_reply",
        "/sys/pk1/dk1/thing/tag/query",
        "/sys/pk1/dk1/thing/event/a/b/post", "/sys/pk1/dk1/thing/measurepoint/get", "/sys/pk1/dk1/", "",
        "/ext/session/pk1/dk1/thing/measurepoint/post",
    ],
)  # fmt: skip
def test_what_is_no_report_gets_no_answer(topic: str) -> None:
    assert mqtt_wire.answer_report(IDENTITY, topic, request()) is None


@pytest.mark.parametrize(
    ("payload", "yes"),
    [
        (b'{"id":"1","code":200,"data":null,"message":"device activate success"}', True),
        (b'{"id":"1","code":"200"}', True),
        (b'{"id":"1","code":"1101","message":"downstream command handler not registered"}', False),
        (b'{"id":"1","code":1101}', False),
        (b'{"code":true}', False),
        (b'{"code":[200]}', False),
        (b'{"code":null}', False),
        (b"{}", False),
        (b"200", False),
        (b"", False),
        (b"\xff", False),
        (b'{"code":' + b"[" * 50_000, False),
        (b'{"code":' + b"2" * 5_000 + b"}", False),
    ],
    ids=lambda value: str(value)[:40],
)
def test_acknowledgement(payload: bytes, yes: bool) -> None:
    assert mqtt_wire.acknowledges(payload) is yes


def test_command() -> None:
    topic, payload = mqtt_wire.write_command(IDENTITY, "thing/disable")
    assert topic == "/sys/pk1/dk1/thing/disable"
    assert payload == b'{"id":"1","version":"1.0","method":"thing.disable","params":{}}'


# --- any input at all ---

text = st.text(st.characters()) | st.sampled_from(["\ud800", "\0", "", "+08:00", "sha256", "x" * 65, "\u0663" * 13])
number = st.integers() | st.sampled_from([10**4000, -(10**400), NOW, 2**31, True, False]) | st.floats()
anything = st.recursive(
    st.none() | st.booleans() | number | text,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(text, inner, max_size=4),
    max_leaves=12,
)


def broken(fields: list[str], whole: Callable[[], dict[str, Any]]) -> st.SearchStrategy[object]:
    """A good body with a few fields replaced, now and then anything at all."""
    changes = st.dictionaries(st.sampled_from(fields) | text, anything, max_size=3)
    return changes.map(lambda change: whole() | change) | anything


T = TypeVar("T")


def attempt(read: Callable[[], T], *reasons: Reason) -> T | Refusal:
    """What is read, or the refusal: for one of the reasons (else MALFORMED), and one that can be written."""
    try:
        return read()
    except Refusal as caught:
        refusal = caught
    assert refusal.reason in (reasons or (Reason.MALFORMED,))
    assert json.dumps(dps_wire.write_error(refusal, "id"))
    return refusal


@settings(deadline=None)  # time is not what is tested
@given(broken([*REQUIRED, "deviceId"], lambda: bootstrap_body(at=NOW)))
def test_any_bootstrap_is_read_or_refused(body: object) -> None:
    claim = attempt(lambda: dps_wire.read_bootstrap(body, NOW))
    if isinstance(claim, Refusal):
        return
    assert wire.SERIAL.fullmatch(claim.serial)
    assert claim.is_fresh(0)
    claim.proven_by("gp1")
    json.dumps([claim.group, claim.description.name, claim.description.name_i18n], ensure_ascii=False).encode()


def read_any_get_conn(body: object) -> None:
    claim = attempt(lambda: dps_wire.read_get_conn(body, NOW))
    if isinstance(claim, Refusal):
        return
    claim.caller.proven_by("gp1")
    if claim.branch is not None:
        assert wire.SERIAL.fullmatch(claim.branch_serial)


@settings(deadline=None)  # time is not what is tested
@given(broken(["self", "sub", "signMethod"], lambda: {"self": get_conn_proof("GW", at=NOW), "sub": {"branch": 1}}))
def test_any_get_conn_is_read_or_refused(body: object) -> None:
    read_any_get_conn(body)


@settings(deadline=None)  # time is not what is tested
@given(broken(["sn", "timestamp", "sign", "branch", "createSubSnFromGw"], lambda: get_conn_proof("SUB", at=NOW)))
def test_any_sub_is_read_or_refused(sub: object) -> None:
    read_any_get_conn({"self": get_conn_proof("GW", at=NOW), "sub": sub})


pair = st.tuples(st.sampled_from(["securemode", "signmethod", "timestamp", " SECUREMODE"]) | text,
                 st.sampled_from(["2", "3", "4", "sha256", "md5", "1700000000000"]) | text).map("=".join)  # fmt: skip
blocks = st.tuples(text, st.lists(pair, max_size=5).map(",".join)).map(lambda parts: f"{parts[0]}|{parts[1]}|")


@settings(deadline=None)  # time is not what is tested
@given(blocks | text)
def test_any_client_id_is_read_or_refused(client_id: str) -> None:
    read = attempt(lambda: mqtt_wire.read_client_id(client_id), Reason.MALFORMED, Reason.UNSUPPORTED)
    if isinstance(read, Refusal):
        return
    assert 0 < read.length_counted <= 64
    assert mqtt_wire.mqtt_password(read, "dk1", "pk1", "ds1")


@settings(deadline=None)  # time is not what is tested
@given(st.binary() | anything.map(lambda value: json.dumps({"id": "1", "code": value}).encode()))
def test_any_reply_is_judged(payload: bytes) -> None:
    assert mqtt_wire.acknowledges(payload) in {True, False}
    assert json.loads(mqtt_wire.write_reply(mqtt_wire.peek_id(payload), 200))


@settings(deadline=None)  # time is not what is tested
@given(
    st.sampled_from([POST, "/sys/pk1/dk1/thing/event/x/post", "/sys/pk2/dk1/thing/measurepoint/post"]) | text,
    st.binary() | st.dictionaries(st.sampled_from(["id", "method", "params", "version"]), anything).map(
        lambda value: json.dumps(value).encode()
    ),
)  # fmt: skip
def test_any_message_is_answered_or_let_pass(topic: str, payload: bytes) -> None:
    answer = mqtt_wire.answer_report(IDENTITY, topic, payload)
    if answer is not None:
        assert set(json.loads(answer)) >= {"id", "code", "data"}
