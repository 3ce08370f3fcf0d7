"""provisioning/protocols/ublox/provisioning.py"""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provisioning.model.refusal import Reason, Refusal
from provisioning.protocols.ublox import wire
from provisioning.protocols.ublox.device_wire import SetProvisioning
from provisioning.protocols.ublox.provisioning import (
    interval,
    is_enabled,
    merge,
    read,
    stated,
    switched_on,
    synchronize,
)

THEN = datetime(2026, 5, 6, tzinfo=UTC)
NOW = THEN + timedelta(days=1)


def authorization(name: str, state: object = "ENABLED") -> dict[str, Any]:
    return {"Authorizations": [{"Name": name, "State": state}]}


def heartbeat(value: object) -> dict[str, Any]:
    return {"NetworkParameters": [{"Name": "SecurityHeartbeatInSec", "Value": value}]}


@pytest.mark.parametrize(
    ("provisioning", "wanted"),
    [
        (
            {
                "Authorizations": [{"Name": "LocalDPR", "State": "ENABLED"}, {"Name": "ZTPV1", "State": "DISABLED"}],
                "NetworkParameters": [{"Name": "SecurityHeartbeatInSec", "Value": 86400}],
                "Zerotouch": {"CAName": "example.com"},
            },
            {"LocalDPR": "ENABLED", "ZTPV1": "DISABLED", "SecurityHeartbeatInSec": 86400, "CAName": "example.com"},
        ),
        (
            {"LocalDPR": "ENABLED", "SecurityHeartbeatInSec": 86400, "CAName": "example.com"},
            {"LocalDPR": "ENABLED", "SecurityHeartbeatInSec": 86400, "CAName": "example.com"},
        ),
        (authorization("LocalC2C") | {"LocalC2CKeyPairing": "DISABLED"},
         {"LocalC2C": "ENABLED", "LocalC2CKeyPairing": "DISABLED"}),
        (heartbeat(3600), {"SecurityHeartbeatInSec": 3600}),
        (heartbeat(2592000.0), {"SecurityHeartbeatInSec": 2592000}),
        ({"Zerotouch": {"CAName": "a" * 45}, "Authorizations": [], "NetworkParameters": None}, {"CAName": "a" * 45}),
        ({"LocalDPR": "ENABLED", "Unknown": 1}, {"LocalDPR": "ENABLED"}),
    ],
)  # fmt: skip
def test_both_forms_are_read(provisioning: object, wanted: object) -> None:
    assert read(provisioning) == wanted


@pytest.mark.parametrize(
    "provisioning",
    [
        None, [], "LocalDPR", 1, {}, {"Unknown": "ENABLED"}, {"Authorizations": [], "NetworkParameters": []},
        authorization("Evaluation"), {"Evaluation": "ENABLED"}, {"LocalDPR": "ENABLED", "Evaluation": "DISABLED"},
        authorization("localdpr"), authorization("SecurityHeartbeatInSec", 3600), authorization("LocalDPR", "enabled"),
        authorization("LocalDPR", True), authorization("LocalDPR", None), {"LocalDPR": None}, {"LocalDPR": ["ENABLED"]},
        {"Authorizations": {"Name": "LocalDPR", "State": "ENABLED"}}, {"Authorizations": ["LocalDPR"]},
        {"Authorizations": [{"State": "ENABLED"}]}, {"Authorizations": [{"Name": ["LocalDPR"], "State": "ENABLED"}]},
        {"Authorizations": [{"Name": "LocalDPR", "State": "ENABLED"}] * 2},
        authorization("LocalDPR") | {"LocalDPR": "ENABLED"},
        heartbeat(3599), heartbeat(2592001), heartbeat("3600"), heartbeat(3600.5), heartbeat(True), heartbeat(None),
        heartbeat(10**64), {"SecurityHeartbeatInSec": -3600}, {"NetworkParameters": [{"Name": "Other", "Value": 3600}]},
        {"NetworkParameters": [{"Value": 3600}]}, heartbeat(3600) | {"SecurityHeartbeatInSec": 7200},
        {"Zerotouch": {}}, {"Zerotouch": "example.com"}, {"Zerotouch": {"CAName": ""}}, {"CAName": "a" * 46},
        {"CAName": "a b"}, {"CAName": "ca\n"}, {"CAName": 1}, {"Zerotouch": {"CAName": "a"}, "CAName": "a"},
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(provisioning: object) -> None:
    with pytest.raises(ValueError, match=r"."):
        read(provisioning)
    with pytest.raises(Refusal) as caught:
        SetProvisioning.read({"ROTPublicUIDs": ["1"], "Provisioning": provisioning})
    assert (caught.value.reason, caught.value.detail) == (Reason.MALFORMED, {"field": "Provisioning"})


NAMES = st.sampled_from(
    ["Authorizations", "NetworkParameters", "Zerotouch", "Name", "State", "Value", *wire.AUTHORIZATIONS, "CAName"]
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | NAMES | st.just("ENABLED"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES | st.text(max_size=5), inner, max_size=4),
)


@given(VALUES)
def test_anything_is_read_or_refused(value: object) -> None:
    try:
        wanted = read(value)
    except ValueError:
        return
    assert wanted
    assert read(dict(wanted)) == wanted, "names as keys are a form of their own"


def test_only_what_changes_gets_a_new_date() -> None:
    before = merge({}, {"LocalDPR": "ENABLED", "ZTPV1": "ENABLED", "SecurityHeartbeatInSec": 3600}, THEN)
    after = merge(before, {"LocalDPR": "ENABLED", "ZTPV1": "DISABLED", "CAName": "a"}, NOW)
    assert after == {
        "LocalDPR": ("ENABLED", THEN), "ZTPV1": ("DISABLED", NOW), "SecurityHeartbeatInSec": (3600, THEN),
        "CAName": ("a", NOW),
    }  # fmt: skip
    assert merge(before, {}, NOW) == before
    assert stated(after) == {"LocalDPR": "ENABLED", "ZTPV1": "DISABLED", "SecurityHeartbeatInSec": 3600, "CAName": "a"}


def test_what_is_desired_becomes_current() -> None:
    desired = merge({}, {"LocalDPR": "ENABLED", "SecurityHeartbeatInSec": 3600}, THEN)
    current = synchronize({"ZTPV1": ("ENABLED", THEN)}, desired, NOW)
    assert current == {
        "ZTPV1": ("ENABLED", THEN), "LocalDPR": ("ENABLED", NOW), "SecurityHeartbeatInSec": (3600, NOW),
    }  # fmt: skip
    assert synchronize(current, desired, NOW + timedelta(days=1)) == current, "nothing new, nothing to date"


def test_of_what_is_desired_no_longer_the_interval_alone_goes_back() -> None:
    current = merge({}, {"LocalDPR": "ENABLED", "SecurityHeartbeatInSec": 3600}, THEN)
    after = synchronize(current, {}, NOW)
    assert after == {"LocalDPR": ("ENABLED", THEN), "SecurityHeartbeatInSec": (1_209_600, NOW)}
    assert synchronize(after, {}, NOW + timedelta(days=1)) == after
    assert synchronize({}, {}, NOW) == {}, "the default need not be told"


def test_what_is_switched_on_is_told_from_what_was_on() -> None:
    before = {"LocalDPR": ("ENABLED", THEN), "ZTPV1": ("DISABLED", THEN)}
    after = {"LocalDPR": ("ENABLED", NOW), "ZTPV1": ("ENABLED", NOW), "LocalC2C": ("DISABLED", NOW)}
    assert switched_on(before, after) == ("ZTPV1",)
    assert switched_on({}, after) == ("LocalDPR", "ZTPV1")
    assert switched_on(after, {}) == ()
    assert [is_enabled(after, name) for name in ("LocalDPR", "LocalC2C", "Evaluation")] == [True, False, False]


def test_the_interval_has_a_default() -> None:
    assert interval({}) == 1_209_600
    assert interval({"SecurityHeartbeatInSec": (86_400, NOW)}) == 86_400
