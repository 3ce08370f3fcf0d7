"""Tencent's own Python SDK against a service: it registers, is refused, logs in, and speaks for other devices."""

import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from provisioning.app import Running, gatehouse
from provisioning.core import ca, certify, inventory, pki, registry
from provisioning.model.identity import Identity
from tests.conftest import ROOT, Serve, load_rows, settings_for, until
from tests.provisioning.protocols.conftest import Lines
from tests.provisioning.protocols.conftest import lines as lines  # noqa: PLC0414 - a fixture
from tests.registrants import PRODUCT, PRODUCT_ID, PRODUCT_SECRET
from tests.tencent import LEAVES, device_row, product_row, psk
from tests.vendor.conftest import Drive, Driver, drivers

pytestmark = [pytest.mark.vendor, pytest.mark.server]

DATA, EVENT = f"{PRODUCT_ID}/dev1/data", f"{PRODUCT_ID}/dev1/event"


@pytest.fixture
async def drive() -> AsyncIterator[Drive]:
    """Devices on Tencent's SDK."""
    async with drivers("drive_tencent.py", ".venv-vendor-tencent") as start:
        yield start


@pytest.fixture
async def running(service: Running) -> Running:
    await load_rows(service, PRODUCT)
    return service


async def make(drive: Drive, running: Running, device: str = "dev1", **more: Any) -> Driver:
    driver = await drive()
    at = running.ports
    ports = {"80": at["http"], "443": at["https"], "1883": at["mqtt"], "8883": at["mqtts"]}
    await driver("make", ports=ports, **({"product": PRODUCT_ID, "product_secret": PRODUCT_SECRET} | more),
                 device=device)  # fmt: skip
    return driver


async def connected(driver: Driver) -> Driver:
    await driver("connect")
    assert await driver("wait", kind="on_connect", text="0"), await driver("seen")
    return driver


async def stored(running: Running, device: str = "dev1") -> str:
    async with running.database.read() as tx:
        return (await registry.device(tx, "tencent", PRODUCT_ID, device)).secret


async def test_sdk_is_the_one_that_is_locked(drive: Drive) -> None:
    locked = re.search(
        r"^tencent-iot-device==(\S+)", (ROOT / "config/lock/vendor-tencent.txt").read_text("utf-8"), re.MULTILINE
    )
    assert locked is not None
    assert await (await drive())("sdk") == locked[1]


async def test_registers_logs_in_and_is_denied_another_registration(
    running: Running, drive: Drive, lines: Lines
) -> None:
    """A lost answer costs nothing; from the first CONNECT on, the key is the device's alone."""
    device = await make(drive, running)
    code, key = await device("register")
    assert (code, key) == (0, await stored(running))
    assert await device("kept") == key
    assert ["asked", "ap-guangzhou.gateway.tencentdevices.com:80"] in await device("seen")
    assert await device("register") == [0, key]

    await connected(device)
    assert ["asked", f"{PRODUCT_ID}.iotcloud.tencentdevices.com:1883"] in await device("seen")
    assert running.sessions.find(Identity("tencent", PRODUCT_ID, "dev1")) is not None
    assert await device("register") == [-1, "Device already activated"]
    assert await device("is_connected"), "a refused registration has disturbed the session"

    _, mid = await device("subscribe", topic=DATA)
    assert await device("wait", kind="subscribed", text=f"{mid}: 1;"), await device("seen")
    _, mid = await device("publish", topic=EVENT, payload={"temp": 21.5})
    assert await device("wait", kind="published", text=f"{mid};"), await device("seen")
    await device("publish", topic=DATA, payload={"temp": 22})
    assert await device("wait", kind="own", text='"temp": 22'), await device("seen")
    await device("disconnect")
    await until(lambda: len(running.sessions) == 0, "the end of the session")

    told = [(line["outcome"], line["reason"]) for line in lines if line["event"] == "http.register"]
    assert told == [("accepted", ""), ("accepted", ""), ("refused", "activation_spent")]
    assert not [line for line in lines if line["log_level"] in {"error", "critical"}], "a fault of ours"


REFUSED = {
    "wrong secret": ({}, {"product_secret": "x" * 24}, "Check signature failed"),
    "unknown product": ({}, {"product": "NOSUCHPROD"}, "Check signature failed"),
    "register type 0": ({"registerType": 0}, {}, "Dynamic registration is not enabled"),
    "register type 1": ({"registerType": 1}, {}, "Device does not exist"),
    "above the limit": ({"registerLimit": 1}, {}, "Registration limit reached"),
}


@pytest.mark.parametrize("case", REFUSED)
async def test_is_refused(running: Running, drive: Drive, lines: Lines, case: str) -> None:
    """The SDK sees an error with the vendor's words, and keeps no key."""
    product, more, words = REFUSED[case]
    await load_rows(running, PRODUCT | product)
    if case == "above the limit":
        code, _ = await (await make(drive, running, "first"))("register")
        assert code == 0
    device = await make(drive, running, **more)
    assert await device("register") == [-1, words]
    assert await device("kept") == "YOUR_DEVICE_SECRET"
    assert not [line for line in lines if line["log_level"] in {"error", "critical"}], "a fault of ours"


async def test_wrong_key(running: Running, drive: Drive, lines: Lines) -> None:
    """The SDK calls nobody on a refused CONNACK, and tries again."""
    await load_rows(running, device_row("dev1", PRODUCT_ID))
    device = await make(drive, running, psk=psk("another"))
    await device("connect")
    await until(lambda: sum(line["event"] == "mqtt.login" for line in lines) > 1, "a second attempt")
    logins = [(line["outcome"], line["reason"]) for line in lines if line["event"] == "mqtt.login"]
    assert set(logins) == {("refused", "not_proven")}
    assert not await device("is_connected")
    assert len(running.sessions) == 0


async def test_comes_back_after_a_restart(database_url: str, drive: Drive) -> None:
    """With the user name of its first login, whose expiry has passed, as milliseconds: that is how the SDK has it."""
    async with gatehouse(settings_for(database_url)) as before:
        await load_rows(before, PRODUCT, device_row("dev1", PRODUCT_ID))
        device = await connected(await make(drive, before, psk=psk("dev1")))
        port = before.mqtt.port
    assert await device("wait", kind="on_disconnect")
    async with gatehouse(settings_for(database_url, mqtt={"port": port})) as after:
        await until(lambda: len(after.sessions) == 1, "the device to log in again", 20)
        await until(lambda: device("is_connected"), "the SDK to know that it has")


async def test_gateway_speaks_for_another_device(running: Running, drive: Drive) -> None:
    # What was refused once the SDK takes for refused the next time too: so that is another device.
    await load_rows(running, *(device_row(name, PRODUCT_ID) for name in ("dev1", "sub1", "sub2")))
    device = await make(drive, running, psk=psk("dev1"), sub_devices=[[PRODUCT_ID, "sub1"]])
    await connected(device)
    mid = await device("gateway")
    assert await device("wait", kind="subscribed", text=f"{mid}: 0;"), await device("seen")
    sub, other = ({"product": PRODUCT_ID, "device": name} for name in ("sub1", "sub2"))
    assert await device("online", **other) == 1, "it is not bound"
    assert await device("bind", **other, psk=psk("wrong")) == 1
    assert await device("bind", **sub, psk=psk("sub1")) == 0
    assert await device("bound", product=PRODUCT_ID, device="dev1") == [f"{PRODUCT_ID}/sub1"]
    assert await device("online", **sub) == 0
    _, mid = await device("subscribe", topic=f"{PRODUCT_ID}/sub1/data")
    assert await device("wait", kind="subscribed", text=f"{mid}: 1;"), await device("seen")
    await device("publish", topic=f"{PRODUCT_ID}/sub1/data", payload={"level": 3})
    assert await device("wait", kind="own", text='"level": 3'), await device("seen")
    assert await device("offline", **sub) == 0
    assert await device("unbind", **sub) == 0
    assert await device("unbind", **sub) == 1
    assert await device("is_connected")


async def test_certificate_logs_in_and_its_revocation_ends_it(serve: Serve, drive: Drive, tmp_path: Path) -> None:
    """Over TLS, to the vendor's host name; the SDK checks our certificate against our authority."""
    host = f"{LEAVES}.iotcloud.tencentdevices.com"
    running = await serve(tls={"names": ["localhost", host]})
    await load_rows(running, product_row(LEAVES, encryptionType=1), device_row("c1", LEAVES))
    async with running.database.begin() as tx:
        device = await registry.device(tx, "tencent", LEAVES, "c1")
        authority = await ca.default(tx)
        made = await certify.issue_with_key(
            tx, authority, pki.new_key(), pki.make_subject(f"{LEAVES}c1"), now=datetime.now(UTC), days=30, device=device
        )
    files = {"ca.pem": pki.write_pem(authority.certificate), "c1.pem": certify.bundle(authority, made.certificate),
             "c1.key": made.key}  # fmt: skip
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    paths = [str(tmp_path / name) for name in files]
    driver = await make(drive, running, "c1", product=LEAVES, psk=psk("nobody's"), files=paths)
    await connected(driver)
    assert ["asked", f"{host}:8883"] in await driver("seen")
    _, mid = await driver("publish", topic=f"{LEAVES}/c1/event", payload={"temp": 21})
    assert await driver("wait", kind="published", text=f"{mid};"), await driver("seen")
    async with running.database.begin() as tx:
        await inventory.revoke(tx, made.certificate, now=datetime.now(UTC))
    assert await driver("wait", kind="on_disconnect"), await driver("seen")
    await until(lambda: len(running.sessions) == 0, "the end of the session", 2)


def test_missing_sdk_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.vendor.conftest import interpreter

    monkeypatch.setenv("VENDOR_TENCENT_PYTHON", "/nowhere/python")
    with pytest.raises(pytest.fail.Exception, match=r"/nowhere/python.*make \.venv-vendor-tencent"):
        interpreter(".venv-vendor-tencent")
