"""The vendor's own Python SDK against a service: what its users do, and what it makes of a refusal."""

import json
import re

import pytest

from provisioning.app import Running, gatehouse
from provisioning.core import registry
from provisioning.model.identity import Identity
from tests.conftest import ROOT, load_rows, settings_for, until
from tests.devices import DEVICE, GROUP, PRODUCT
from tests.vendor.conftest import Drive, Driver, interpreter

pytestmark = [pytest.mark.vendor, pytest.mark.server]

NEW: dict[str, object] = {"type": "device", "protocol": "enos", "productKey": "pk1", "deviceKey": "new"}
"""A device that has no secret of its own yet."""


@pytest.fixture
async def running(service: Running) -> Running:
    await load_rows(service, PRODUCT, GROUP, DEVICE, NEW)
    return service


def where(running: Running) -> str:
    return f"tcp://127.0.0.1:{running.mqtt.port}"


async def static(device: Driver, running: Running, secret: str = "ds1", key: str = "dk1") -> None:
    await device("static", url=where(running), product="pk1", device=key, secret=secret)
    assert await device("wait", kind="on_connect"), await device("seen")


async def test_sdk_is_the_one_that_is_locked(drive: Drive) -> None:
    device = await drive()
    locked = re.search(
        r"^enos-mqtt-sdk-python==(\S+)", (ROOT / "config/lock/vendor.txt").read_text("utf-8"), re.MULTILINE
    )
    assert locked is not None
    assert await device("sdk") == locked[1]


async def test_static_login_and_reports(running: Running, drive: Drive) -> None:
    device = await drive()
    assert await device("static_and_wait", url=where(running), product="pk1", device="dk1", secret="ds1")
    for order in ("post", "post", "post_batch", "post_event"):
        assert await device(order) == 200, order
    assert running.sessions.find(Identity("enos", "pk1", "dk1")) is not None
    await device("close")
    await until(lambda: len(running.sessions) == 0, "the end of the session")


async def test_wrong_password(running: Running, drive: Drive) -> None:
    """The SDK calls none of its callbacks on a refused CONNACK: it logs the code, and tries again and again."""
    device = await drive()
    await device("static", url=where(running), product="pk1", device="dk1", secret="wrong")
    assert await device("wait", kind="log", text="bad connection, error code: 4"), await device("seen")
    assert not await device("is_connected")
    assert {kind for kind, _ in await device("seen")} == {"log"}
    assert len(running.sessions) == 0


async def test_dynamic_activation(running: Running, drive: Drive) -> None:
    """The secret comes unasked, the session goes on and can post, and the secret is good for a login of its own."""
    device = await drive()
    await device("dynamic", url=where(running), product="pk1", product_secret="ps1", device="new")
    assert await device("wait", kind="secret"), await device("seen")
    secrets = [text for kind, text in await device("seen") if kind == "secret"]
    async with running.database.read() as tx:
        stored = await registry.device(tx, "enos", "pk1", "new")
    assert secrets == [stored.secret], "once, and the one that is stored"
    assert await device("post") == 200
    assert await device("is_connected")
    await device("close")

    again = await drive()
    await static(again, running, secrets[0], key="new")
    assert await again("post") == 200
    async with running.database.read() as tx:
        assert (await registry.device(tx, "enos", "pk1", "new")).activated_at is not None

    late = await drive()
    await late("dynamic", url=where(running), product="pk1", product_secret="ps1", device="new")
    assert await late("wait", kind="log", text="bad connection, error code: 5")
    assert await again("is_connected"), "a refused activation has disturbed the session"


async def test_impostor_does_not_disturb_the_device(running: Running, drive: Drive) -> None:
    device, impostor = await drive(), await drive()
    await static(device, running)
    holder = running.sessions.find(Identity("enos", "pk1", "dk1"))
    await impostor("static", url=where(running), product="pk1", device="dk1", secret="wrong")
    assert await impostor("wait", kind="log", text="bad connection, error code: 4")
    assert not await impostor("is_connected")
    assert await device("post") == 200
    assert await device("is_connected")
    assert running.sessions.find(Identity("enos", "pk1", "dk1")) is holder, "it had to connect again"
    assert [each for each in await device("seen") if each[0] == "log"] == []


async def test_bootstrap_and_login(running: Running, drive: Drive) -> None:
    device = await drive()
    url = f"http://127.0.0.1:{running.http.port}"
    triple = await device("bootstrap", url=url, group="g1", password="gp1", serial="SN1")
    assert await device("bootstrap", url=url, group="g1", password="gp1", serial="SN1") == triple
    await device("static", url=triple["murl"], product=triple["pk"], device=triple["dk"], secret=triple["ds"])
    assert await device("wait", kind="on_connect"), await device("seen")
    assert await device("post") == 200


async def disable(running: Running) -> None:
    async with running.database.begin() as tx:
        await registry.disable(tx, await registry.device(tx, "enos", "pk1", "dk1"))


async def test_disabled_device_is_told_and_may_not_come_back(running: Running, drive: Drive) -> None:
    device = await drive()
    await static(device, running)
    await device("handle_disable")
    await disable(running)
    assert await device("wait", kind="disable"), await device("seen")
    told = [json.loads(text) for kind, text in await device("seen") if kind == "disable"]
    assert told == [{"method": "thing.disable", "path": ["pk1", "dk1"]}]
    assert await device("wait", kind="log", text="bad connection, error code: 5"), await device("seen")
    assert not await device("is_connected")
    assert len(running.sessions) == 0


async def test_disabled_device_that_does_not_listen_is_ended_all_the_same(running: Running, drive: Drive) -> None:
    """Out of the box the SDK cannot decode the command: it logs so and sends no reply."""
    device = await drive()
    await static(device, running)
    await disable(running)
    topic = "/sys/pk1/dk1/thing/disable"
    assert await device("wait", kind="log", text=f"decode received message failed, from topic {topic}")
    assert await device("wait", kind="log", text="bad connection, error code: 5"), await device("seen")
    assert len(running.sessions) == 0


async def test_device_comes_back_after_a_restart(database_url: str, drive: Drive) -> None:
    """With the client id and the timestamp of its first login, as the SDK does."""
    device = await drive()
    async with gatehouse(settings_for(database_url)) as before:
        await load_rows(before, PRODUCT, DEVICE)
        await static(device, before)
        port = before.mqtt.port
    assert await device("wait", kind="log", text="bad disconnection")
    async with gatehouse(settings_for(database_url, mqtt={"port": port})) as after:
        await until(lambda: len(after.sessions) == 1, "the device to log in again", 20)
        await until(lambda: device("is_connected"), "the SDK to know that it has")


def test_missing_sdk_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VENDOR_PYTHON", "/nowhere/python")
    with pytest.raises(pytest.fail.Exception, match=r"/nowhere/python.*make \.venv-vendor"):
        interpreter()
