"""Bodies of the device interface and their Mac: contract, section 3."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provisioning.model.command import Command
from provisioning.model.module import Module
from provisioning.model.refusal import Refusal
from provisioning.protocols.ublox import machine_wire as mw
from provisioning.protocols.ublox import refusals
from tests.ublox import ROOT_SECRET, sign

VECTORS = json.loads((Path(__file__).parents[3] / "vectors.json").read_text("utf-8"))["ublox"]["device_mac"]
UID = "0002000089280087"
AT = datetime(2030, 1, 1, tzinfo=UTC)
LARGEST = 2**63 - 1
MAC = "0" * 64

BOOTSTRAP: dict[str, Any] = {"ROTPublicUID": UID, "Timestamp": "2030-01-01T00:00:00Z", "Nonce": "n1", "Mac": MAC}
HEARTBEAT: dict[str, Any] = {"ROTPublicUID": UID, "Counter": 7, "Applied": [], "Mac": MAC}
PRESENT = Module(
    id=1, account_id=1, account="k", uid=UID, activated=True, disabled=False, bootstrapped_at=AT, rot_version="1",
    serial="235435", version="12", device_serial="123234354", imei="862618583984360", profile="QHlN732VgUWCdfNeXHkQR1",
    type_number="SARA-R410M-03B-00", current={"SecurityHeartbeatInSec": (86_400, AT), "LocalDPR": ("ENABLED", AT)},
)  # fmt: skip
EMPTY = Module(id=1, account_id=1, account="k", uid=UID, activated=False, disabled=False)


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["name"])
def test_the_mac_of_the_vectors(vector: dict[str, Any]) -> None:
    body, root, expected = vector["inputs"]["body"], vector["inputs"]["root_hex"], vector["expected"]
    assert mw.canonical(body).decode() == expected["canonical"]
    assert mw.mac(body, body["ROTPublicUID"], root) == expected["Mac"]
    assert mw.canonical(body | {"Mac": "x"}).decode() == expected["canonical"], "the Mac is not over itself"


BODIES = st.dictionaries(
    st.text(max_size=8),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=8),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
        max_leaves=6,
    ),
    max_size=6,
)


@given(BODIES, st.data())
def test_what_a_module_signs_is_proven_and_nothing_else_is(body: dict[str, Any], data: st.DataObject) -> None:
    """Whatever stands in it: fields that we do not know count too. The module's side is the test's own code."""
    body.pop("Mac", None)
    signed = sign(body, UID)
    received = json.loads(json.dumps(signed))
    assert mw.proves(received, UID, ROOT_SECRET.hex(), signed["Mac"])
    assert not mw.proves(received | {"Another": data.draw(st.text())}, UID, ROOT_SECRET.hex(), signed["Mac"])
    assert not mw.proves(received, UID, bytes(32).hex(), signed["Mac"])
    assert not mw.proves(received, UID[:-1] + "8", ROOT_SECRET.hex(), signed["Mac"])
    assert not mw.proves(received, UID, ROOT_SECRET.hex(), signed["Mac"].upper() + "é")


def test_a_bootstrap() -> None:
    read = mw.Bootstrap.read(
        BOOTSTRAP | {"Timestamp": "2030-01-01T02:00:00+02:00", "DeviceProfileUID": "mbYbAX-CoEqE97TMFBsUKQ",
                     "DeviceSerialNumber": "123234354", "IMEI": "862618583984360", "TypeNumber": "SARA",
                     "RotVersion": "1", "Version": "12", "SerialNumber": "235435", "Unknown": 1}
    )  # fmt: skip
    assert (read.uid, read.at, read.nonce, read.mac) == (UID, AT, "n1", MAC)
    assert (read.profile_uid, read.device_serial, read.imei) == (
        "mbYbAX-CoEqE97TMFBsUKQ", "123234354", "862618583984360"
    )  # fmt: skip
    assert (read.type_number, read.rot_version, read.version, read.serial) == ("SARA", "1", "12", "235435")
    assert MAC not in repr(read)
    short = mw.Bootstrap.read(BOOTSTRAP | {"ROTPublicUID": 2000089280087, "IMEI": None, "DeviceSerialNumber": " ~"})
    assert (short.uid, short.profile_uid, short.imei, short.device_serial) == (UID, None, None, " ~")
    unattributed = mw.Bootstrap.read(BOOTSTRAP | {"DeviceProfileUID": "UNATTRIBUTED DEVICE PROFILE"})
    assert unattributed.profile_uid is None


def test_a_heartbeat() -> None:
    read = mw.Heartbeat.read(
        HEARTBEAT | {
            "Counter": LARGEST, "CSR": "MII",
            "Applied": [
                "SET_HEARTBEAT", {"Command": "ROTATE_KEYSET"},
                {"Id": 3, "Command": "SET_AUTHORIZATIONS", "Result": "OK"},
                {"Command": "INSTALL_CERTIFICATE", "Result": "ERROR", "Error": "x" * 300, "More": []},
                {"Command": "REMOVE_CERTIFICATE", "Result": "ERROR"},
            ],
        }
    )  # fmt: skip
    assert (read.counter, read.csr) == (LARGEST, "MII")
    assert [(each.id, each.kind, each.failed, each.why) for each in read.applied] == [
        (None, "SET_HEARTBEAT", False, "no reason given"),
        (None, "ROTATE_KEYSET", False, "no reason given"),
        (3, "SET_AUTHORIZATIONS", False, "no reason given"),
        (None, "INSTALL_CERTIFICATE", True, "x" * 256),
        (None, "REMOVE_CERTIFICATE", True, "no reason given"),
    ]
    by_name, by_id = read.applied[0], read.applied[2]
    assert by_name.is_about(Command(9, "SET_HEARTBEAT", {}))
    assert not by_name.is_about(Command(9, "ROTATE_KEYSET", {}))
    assert by_id.is_about(Command(3, "SET_AUTHORIZATIONS", {}))
    assert not by_id.is_about(Command(4, "SET_AUTHORIZATIONS", {}))
    assert not by_id.is_about(Command(3, "SET_HEARTBEAT", {}))


Wrong = dict[str, object]
WRONG_UIDS: list[object] = ["", "x", "0" * 17, -1, 1.5, True, None, [], {}]
NO_LINES: list[object] = ["", 1, "x" * 65, "a\nb"]
WRONG_BOOTSTRAPS: dict[str, list[object]] = {
    "ROTPublicUID": WRONG_UIDS,
    "Timestamp": ["", "yesterday", 1_900_000_000, None, "2030-13-01T00:00:00Z", "9999", "0001-01-01T00:00:00+01:00"],
    "Nonce": [*NO_LINES, None],
    "DeviceProfileUID": ["", "x" * 65, 1, []],
    "DeviceSerialNumber": ["", "x" * 17, "é", "a\n", 1],
    "IMEI": ["", "1" * 13, "1" * 17, "86261858398436x", 862618583984360, "8626185839843\n"],
    "TypeNumber": NO_LINES,
    "RotVersion": NO_LINES,
    "Version": NO_LINES,
    "SerialNumber": NO_LINES,
    "Mac": ["", 1, None, "0" * 129],
}
SET: dict[str, object] = {"Command": "SET_HEARTBEAT"}
WRONG_HEARTBEATS: dict[str, list[object]] = {
    "ROTPublicUID": WRONG_UIDS,
    "Counter": [0, -1, LARGEST + 1, True, 1.0, 1.5, "7", None, []],
    "Applied": [
        None, "SET_HEARTBEAT", {}, ["REBOOT"], [1], [None], [[]], [{}], ["HEARTBEAT"], ["SET_HEARTBEAT"] * 101,
        [SET | {"Id": 0}], [SET | {"Id": "1"}], [SET | {"Id": True}], [SET | {"Id": 2**63}], [SET | {"Result": "ok"}],
        [SET | {"Result": 1}], [SET | {"Error": 1}], [SET | {"Error": "x" * 5_000}], [{"Command": None}],
        [{"Command": []}],
    ],
    "CSR": ["", 1, []],
    "Mac": ["", 1, None],
}  # fmt: skip
WRONG: list[tuple[type[mw.Proven], Wrong, str, object]] = [
    (form, body, field, value)
    for form, body, wrong in ((mw.Bootstrap, BOOTSTRAP, WRONG_BOOTSTRAPS), (mw.Heartbeat, HEARTBEAT, WRONG_HEARTBEATS))
    for field, values in wrong.items()
    for value in values
]


@pytest.mark.parametrize(("form", "body", "field", "value"), WRONG)
def test_a_value_that_does_not_fit_is_named(form: type[mw.Proven], body: Wrong, field: str, value: object) -> None:
    with pytest.raises(Refusal) as refused:
        form.read(body | {field: value})
    assert refusals.write_error(refused.value) == refusals.Row(400, f"Bad Request. Invalid {field}")


@pytest.mark.parametrize(
    ("form", "body", "needed"),
    [
        (mw.Bootstrap, BOOTSTRAP, ("ROTPublicUID", "Timestamp", "Nonce", "Mac")),
        (mw.Heartbeat, HEARTBEAT, ("ROTPublicUID", "Counter", "Applied", "Mac")),
    ],
)
def test_what_is_missing(form: type[mw.Proven], body: dict[str, Any], needed: tuple[str, ...]) -> None:
    without: list[object] = [{name: body[name] for name in body if name != gone} for gone in needed]
    for each in [*without, [], "x", None, 1]:
        with pytest.raises(Refusal) as refused:
            form.read(each)
        assert refusals.write_error(refused.value) == refusals.BAD_REQUEST, each


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=5,
)


@given(st.sampled_from([(mw.Bootstrap, BOOTSTRAP), (mw.Heartbeat, HEARTBEAT)]), st.data())
def test_any_body_is_read_or_refused(kind: tuple[type[mw.Proven], dict[str, Any]], data: st.DataObject) -> None:
    form, body = kind
    name = data.draw(st.sampled_from([*body, "CSR", "IMEI", "DeviceProfileUID"]))
    try:
        read = form.read(body | {name: data.draw(ANYTHING)})
    except Refusal:
        return
    assert len(read.uid) == 16


def test_replies_and_commands() -> None:
    command = Command(5, "SET_HEARTBEAT", mw.write_heartbeat(PRESENT.current))
    written = {"Id": 5, "Command": "SET_HEARTBEAT", "SecurityHeartbeatInSec": 86_400}
    assert mw.write_beaten([command]) == {"Commands": [written]}
    assert mw.write_bootstrapped(PRESENT, [command]) == {
        "ROTPublicUID": UID, "State": "ACTIVATED", "IsBlacklisted": False, "SecurityHeartbeatInSec": 86_400,
        "Commands": [written],
    }  # fmt: skip
    assert mw.write_bootstrapped(EMPTY, [])["SecurityHeartbeatInSec"] == 1_209_600
    assert mw.write_authorizations(PRESENT.current) == {"Authorizations": [{"Name": "LocalDPR", "State": "ENABLED"}]}
    assert mw.write_rotation("AUTOMATIC", 7) == {"Type": "AUTOMATIC", "Days": 7}
    assert mw.write_rotation("CONTINUOUS", None) == {"Type": "CONTINUOUS"}


@pytest.mark.parametrize(
    ("kind", "body", "older", "pointless"),
    [
        ("SET_AUTHORIZATIONS", {}, Command(1, "SET_AUTHORIZATIONS", {}), True),
        ("SET_HEARTBEAT", {}, Command(1, "SET_AUTHORIZATIONS", {}), False),
        ("ROTATE_KEYSET", {}, Command(1, "ROTATE_KEYSET", {}), True),
        ("INSTALL_CERTIFICATE", {}, Command(1, "INSTALL_CERTIFICATE", {}), True),
        ("INSTALL_CERTIFICATE", {}, Command(1, "INSTALL_CERTIFICATE", {"PrivateKey": "k"}), False),
        ("INSTALL_CERTIFICATE", {"PrivateKey": "l"}, Command(1, "INSTALL_CERTIFICATE", {"PrivateKey": "k"}), True),
        ("INSTALL_CERTIFICATE", {}, Command(1, "REMOVE_CERTIFICATE", {"SerialNumber": "a"}), False),
        ("REMOVE_CERTIFICATE", {"SerialNumber": "a"}, Command(1, "INSTALL_CERTIFICATE", {"SerialNumber": "a"}), True),
        ("REMOVE_CERTIFICATE", {"SerialNumber": "a"}, Command(1, "INSTALL_CERTIFICATE", {"SerialNumber": "b"}), False),
        ("REMOVE_CERTIFICATE", {"SerialNumber": "a"}, Command(1, "REMOVE_CERTIFICATE", {"SerialNumber": "b"}), False),
        ("REMOVE_CERTIFICATE", {"SerialNumber": "a"}, Command(1, "SET_HEARTBEAT", {}), False),
    ],
)
def test_a_command_stands_for_an_older_one(
    kind: str, body: dict[str, object], older: Command, *, pointless: bool
) -> None:
    """But a private key that was not acknowledged is told until it is: the renewal after it comes without."""
    assert mw.makes_pointless(kind, body, older) is pointless


def test_payloads() -> None:
    assert mw.write_facts(PRESENT) == {
        "RotVersion": "1", "SerialNumber": "235435", "Version": "12", "DeviceSerialNumber": "123234354",
        "IMEI": "862618583984360", "DeviceProfileUID": "QHlN732VgUWCdfNeXHkQR1", "TypeNumber": "SARA-R410M-03B-00",
        "IsBlacklisted": False,
    }  # fmt: skip
    assert mw.write_facts(EMPTY) == dict.fromkeys(mw.write_facts(PRESENT)) | {
        "DeviceProfileUID": "UNATTRIBUTED DEVICE PROFILE", "IsBlacklisted": False,
    }  # fmt: skip
    assert mw.write_change(PRESENT) == {
        "DesiredProperties": {},
        "CurrentProperties": {
            "Authorizations": [{"Name": "LocalDPR", "State": "ENABLED", "SyncDate": "2030-01-01T00:00:00Z"}],
            "NetworkParameters": [
                {"Name": "SecurityHeartbeatInSec", "Value": 86_400, "SyncDate": "2030-01-01T00:00:00Z"}
            ],
        },
    }
    assert mw.state_of(EMPTY) == "UNKNOWN"
