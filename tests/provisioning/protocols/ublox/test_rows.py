"""Rows of the registry, both ways from one list; every field rule; and no row that is not read or refused."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provisioning.model.account import (
    AccountProduct,
    AccountSpec,
    ModuleDevice,
    ModuleSpec,
    ProfileGroup,
    ProfileSpec,
)
from provisioning.model.lifecycle import State
from provisioning.model.refusal import Reason, Refusal
from provisioning.model.registry import Device, Group, Product
from provisioning.model.spec import Spec
from provisioning.protocols.ublox import rows

KEY = "0d636af8-d001-49ba-86d3-80f21272c14a"
UID = "0002000089280087"
PROFILE_UID = "mbYbAX-CoEqE97TMFBsUKQ"
ROOT_SECRET = "0f" * 32
OF: dict[str, object] = {"protocol": "ublox", "apiKey": KEY}
ACCOUNT = OF | {"type": "account"}
PROFILE = OF | {"type": "profile", "deviceProfileUID": PROFILE_UID}
DEVICE = OF | {"type": "device", "rotPublicUID": UID}

# What is in the registry, the row that is written of it, and what that row states when it is read again.
BOTH_WAYS: list[tuple[Product | Group | Device, dict[str, object], Spec]] = [
    (
        AccountProduct(
            protocol="ublox", key=KEY, secret="meaningless", name="Meters", demo=True, secret_hash=b"\7" * 32,
            strict_e2e=True, certificates=False,
        ),
        ACCOUNT | {
            "apiSecretSha256": "07" * 32, "name": "Meters", "strictE2E": True, "certificateManagement": False,
            "demo": True,
        },
        AccountSpec(
            protocol="ublox", key=KEY, secret_hash=b"\7" * 32, name="Meters", strict_e2e=True, certificates=False,
            demo=True,
        ),
    ),
    (
        AccountProduct(
            protocol="ublox", key=KEY, secret="meaningless", secret_hash=bytes(32), strict_e2e=False, certificates=True
        ),
        ACCOUNT | {"apiSecretSha256": "00" * 32, "strictE2E": False, "certificateManagement": True},
        AccountSpec(protocol="ublox", key=KEY, secret_hash=bytes(32), strict_e2e=False, certificates=True),
    ),
    (
        ProfileGroup(
            protocol="ublox", key=PROFILE_UID, password="meaningless", product=KEY, name="meters-eu",
            whitelist_check=False,
        ),
        PROFILE | {"profileName": "meters-eu", "whitelistCheck": False},
        ProfileSpec(protocol="ublox", key=PROFILE_UID, product=KEY, name="meters-eu", whitelist_check=False),
    ),
    (
        ModuleDevice(
            protocol="ublox", state=State.ACTIVATED, product=KEY, key=UID, secret=ROOT_SECRET, name="Roof",
            disabled=True, device_serial="SN 1", imei="862618583984360",
        ),
        DEVICE | {
            "rootSecret": ROOT_SECRET, "deviceSerialNumber": "SN 1", "imei": "862618583984360", "name": "Roof",
            "disabled": True,
        },
        ModuleSpec(
            protocol="ublox", product=KEY, key=UID, secret=ROOT_SECRET, device_serial="SN 1", imei="862618583984360",
            name="Roof", disabled=True,
        ),
    ),
    (
        ModuleDevice(
            protocol="ublox", state=State.ALLOCATED, product=KEY, key=UID, secret=ROOT_SECRET, device_serial="", imei=""
        ),
        DEVICE | {"rootSecret": ROOT_SECRET},
        ModuleSpec(protocol="ublox", product=KEY, key=UID, secret=ROOT_SECRET),
    ),
    # As the command line states them: see `cli.run.Desk`.
    (
        Product(protocol="ublox", key=KEY, secret="", name="Meters"),
        ACCOUNT | {"name": "Meters"},
        AccountSpec(protocol="ublox", key=KEY, name="Meters"),
    ),
    (
        Group(protocol="ublox", key=PROFILE_UID, password="", product=KEY, name="n"),
        PROFILE | {"profileName": "n"},
        ProfileSpec(protocol="ublox", key=PROFILE_UID, product=KEY, name="n"),
    ),
    (
        Device(protocol="ublox", state=State.ALLOCATED, product=KEY, key=UID, secret=ROOT_SECRET, name="n"),
        DEVICE | {"rootSecret": ROOT_SECRET, "name": "n"},
        ModuleSpec(protocol="ublox", product=KEY, key=UID, secret=ROOT_SECRET, name="n"),
    ),
]  # fmt: skip


@pytest.mark.parametrize(("thing", "row", "spec"), BOTH_WAYS)
def test_both_ways(thing: Product | Group | Device, row: dict[str, object], spec: Spec) -> None:
    assert rows.write_row(thing) == row
    assert rows.read_row(json.loads(json.dumps(row))) == spec
    assert "meaningless" not in json.dumps(row)
    assert ROOT_SECRET not in repr(spec)


def test_the_rows_of_the_manual() -> None:
    assert rows.read_row(ACCOUNT | {"apiSecret": "s" * 32, "strictE2E": False}) == AccountSpec(
        protocol="ublox", key=KEY, secret="s" * 32, strict_e2e=False
    )
    assert rows.read_row(PROFILE | {"profileName": "n", "whitelistCheck": True}) == ProfileSpec(
        protocol="ublox", key=PROFILE_UID, product=KEY, name="n", whitelist_check=True
    )
    for uid in ("2000089280087", "0002000089280087", 2000089280087):
        assert rows.read_row(DEVICE | {"rotPublicUID": uid, "rootSecret": ROOT_SECRET.upper()}) == ModuleSpec(
            protocol="ublox", product=KEY, key=UID, secret=ROOT_SECRET
        )
    assert rows.read_row(PROFILE | {"deviceProfileUID": "QHlN732VgUWCdfNeXHkQR"}).key == "QHlN732VgUWCdfNeXHkQR"


@pytest.mark.parametrize(
    ("row", "field"),
    [
        ({"type": "product"}, "type"),
        ({"type": ["device"]}, "type"),
        ({}, "type"),
        ({"type": "account"}, "apiKey"),
        (ACCOUNT | {"apiKey": ""}, "apiKey"),
        (ACCOUNT | {"apiKey": "a b"}, "apiKey"),
        (ACCOUNT | {"apiKey": "x" * 65}, "apiKey"),
        (ACCOUNT | {"apiKey": 7}, "apiKey"),
        (ACCOUNT | {"apiSecret": "short"}, "apiSecret"),
        (ACCOUNT | {"apiSecret": "s" * 129}, "apiSecret"),
        (ACCOUNT | {"apiSecret": "s" * 31 + "é"}, "apiSecret"),
        (ACCOUNT | {"apiSecretSha256": "0" * 63}, "apiSecretSha256"),
        (ACCOUNT | {"apiSecretSha256": "A" * 64}, "apiSecretSha256"),
        (ACCOUNT | {"apiSecret": "s" * 32, "apiSecretSha256": "0" * 64}, "apiSecretSha256"),
        (ACCOUNT | {"strictE2E": "true"}, "strictE2E"),
        (ACCOUNT | {"certificateManagement": 1}, "certificateManagement"),
        (ACCOUNT | {"name": "a\x7f"}, "name"),
        (ACCOUNT | {"name": "n" * 256}, "name"),
        (ACCOUNT | {"secret": "s"}, "secret"),
        (OF | {"type": "profile"}, "deviceProfileUID"),
        (PROFILE | {"apiKey": None}, "apiKey"),
        (PROFILE | {"deviceProfileUID": "x" * 20}, "deviceProfileUID"),
        (PROFILE | {"deviceProfileUID": "x" * 23}, "deviceProfileUID"),
        (PROFILE | {"deviceProfileUID": "x" * 21 + "="}, "deviceProfileUID"),
        (PROFILE | {"deviceProfileUID": "x" * 21 + "\n"}, "deviceProfileUID"),
        (PROFILE | {"profileName": ""}, "profileName"),
        (PROFILE | {"whitelistCheck": 0}, "whitelistCheck"),
        (OF | {"type": "device"}, "rotPublicUID"),
        (DEVICE | {"apiKey": None}, "apiKey"),
        (DEVICE | {"rotPublicUID": "0" * 17}, "rotPublicUID"),
        (DEVICE | {"rotPublicUID": "xyz"}, "rotPublicUID"),
        (DEVICE | {"rotPublicUID": -1}, "rotPublicUID"),
        (DEVICE | {"rotPublicUID": True}, "rotPublicUID"),
        (DEVICE | {"rotPublicUID": ["1"]}, "rotPublicUID"),
        (DEVICE | {"rootSecret": "0f" * 31}, "rootSecret"),
        (DEVICE | {"rootSecret": "0g" * 32}, "rootSecret"),
        (DEVICE | {"deviceSerialNumber": "x" * 17}, "deviceSerialNumber"),
        (DEVICE | {"deviceSerialNumber": ""}, "deviceSerialNumber"),
        (DEVICE | {"imei": "1234567890123"}, "imei"),
        (DEVICE | {"imei": "86261858398436x"}, "imei"),
        (DEVICE | {"imei": 862618583984360}, "imei"),
        (DEVICE | {"disabled": None, "enabled": True}, "enabled"),
    ],
)
def test_what_is_wrong_with_a_row(row: dict[str, object], field: str) -> None:
    with pytest.raises(Refusal) as refused:
        rows.read_row(row)
    assert refused.value.reason is Reason.MALFORMED
    assert refused.value.detail["field"] == field
    assert refused.value.detail["rule"]


VALUES: Any = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.lists(st.text(), max_size=2)
NAMES = st.sampled_from([*rows.ACCOUNT, *rows.PROFILE, *rows.DEVICE, "other"])


@given(st.sampled_from(["account", "profile", "device", "other"]), st.dictionaries(NAMES, VALUES, max_size=6))
def test_every_row_is_read_or_refused(kind: str, fields: dict[str, object]) -> None:
    for row in (OF | {"type": kind} | fields, {"type": kind} | fields):
        try:
            found: Spec | Reason = rows.read_row(row)
        except Refusal as refusal:
            found = refusal.reason
        assert found is Reason.MALFORMED or isinstance(found, AccountSpec | ProfileSpec | ModuleSpec)
