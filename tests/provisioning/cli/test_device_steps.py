import asyncio
import re
import time

import aiomqtt
import pytest

from provisioning.app import Running
from tests import devices
from tests.conftest import Spawn, load_rows, service_environment, until
from tests.provisioning.cli.conftest import Command

pytestmark = pytest.mark.server

BY_SERIAL = ("--group", "g1", "--serial", "SN1")


@pytest.fixture
async def filled(command: Command) -> Command:
    await command("product", "create", "pk1")
    await command("group", "create", "g1", "--product", "pk1")
    await command("device", "create", "pk1", "dk1", "--secret", "first")
    await command("device", "create", *BY_SERIAL)
    return command


async def shown(command: Command, *names: str) -> dict[str, object]:
    row: dict[str, object] = (await command("device", "show", *names, "--reveal", "--json")).row
    return row


async def test_disable_and_enable(filled: Command) -> None:
    assert (await filled("device", "disable", "pk1", "dk1")).out == "pk1/dk1 is disabled\n"
    again = await filled("device", "disable", "pk1", "dk1", code=1)
    assert again.err == "gatehouse: the device is disabled: cannot disable\n"
    assert (await filled("device", "enable", "pk1", "dk1", "--json")).row["disabled"] is False
    assert (await filled("device", "enable", "pk1", "dk1", code=1)).err.endswith("is enabled: cannot enable\n")


async def test_allocate_and_reset(filled: Command) -> None:
    done = await filled("device", "allocate", *BY_SERIAL, "--key", "dk2", "--secret", "second")
    assert done.out == "g1:SN1 is allocated: pk1/dk2\n"
    assert (await shown(filled, "pk1", "dk2"))["secret"] == "second"
    assert "cannot allocate" in (await filled("device", "allocate", *BY_SERIAL, code=1)).err
    reset = await filled("device", "reset", "pk1", "dk2")
    assert (reset.out, reset.err) == ("pk1/dk2 is reset: registered\n", "")
    assert (await shown(filled, *BY_SERIAL))["secret"] == ""
    await filled("device", "allocate", *BY_SERIAL)
    assert (await shown(filled, *BY_SERIAL))["key"] == "dk2", "its key stays its own"


async def test_reset_of_a_device_without_serial_number_gives_it_a_new_secret(filled: Command) -> None:
    reset = await filled("device", "reset", "pk1", "dk1")
    assert reset.out == "pk1/dk1 is reset: allocated\n"
    assert reset.err == "it has a new secret; `gatehouse device show pk1 dk1 --reveal` shows it\n"
    assert (await filled("device", "reset", "pk1", "dk1", "--json")).err == ""
    assert (await shown(filled, "pk1", "dk1"))["secret"] not in {"", "first"}


async def test_allocate_says_what_is_missing(filled: Command) -> None:
    assert (await filled("device", "allocate", *BY_SERIAL, "--key", "dk1", code=1)).err == (
        "gatehouse: device is taken by another one\n"
    )
    assert "no product nope" in (await filled("device", "allocate", *BY_SERIAL, "--into", "nope", code=1)).err
    assert "deviceKey must be" in (await filled("device", "allocate", *BY_SERIAL, "--key", "a/b", code=1)).err
    await filled("group", "create", "g2")
    await filled("device", "create", "--group", "g2", "--serial", "SN1")
    homeless = await filled("device", "allocate", "--group", "g2", "--serial", "SN1", code=1)
    assert homeless.err == "gatehouse: group g2 has no product: name one with --into\n"


async def test_replace(filled: Command) -> None:
    assert (
        await filled("device", "replace", *BY_SERIAL, "--new-serial", "SN2")
    ).out == "g1:SN1 has serial number SN2 now\n"
    assert "there is no serial SN1" in (await filled("device", "show", *BY_SERIAL, code=1)).err
    await filled("device", "create", *BY_SERIAL)
    assert "serial is taken" in (await filled("device", "replace", *BY_SERIAL, "--new-serial", "SN2", code=1)).err
    assert "deviceSn must be" in (await filled("device", "replace", *BY_SERIAL, "--new-serial", "a b", code=1)).err
    assert "cannot replace" in (await filled("device", "replace", "pk1", "dk1", "--new-serial", "SN9", code=1)).err


async def test_reactivate_needs_an_allocated_device(filled: Command) -> None:
    assert (await filled("device", "reactivate", "pk1", "dk1")).out == "pk1/dk1 may activate again\n"
    assert "registered: cannot activate again" in (await filled("device", "reactivate", *BY_SERIAL, code=1)).err


async def test_kick_needs_a_device_that_can_log_in(filled: Command) -> None:
    assert (await filled("device", "kick", "pk1", "dk1")).out == "pk1/dk1 was told to leave\n"
    assert "is not allocated" in (await filled("device", "kick", *BY_SERIAL, code=1)).err


@pytest.mark.parametrize("step", ["kick", "disable", "reset", "delete"])
async def test_a_step_ends_the_live_session_within_a_second(
    service: Running, spawn: Spawn, database_url: str, step: str
) -> None:
    """From another process: the device's session at the running service ends, whatever the protocol says before."""
    await load_rows(service, devices.PRODUCT, dict(devices.DEVICE))
    async with devices.raw(service.ports["mqtt"]) as client:
        assert (await client.login(devices.connect(devices.login()))).code == 0
        process = await spawn("device", step, "pk1", "dk1", **service_environment(database_url))
        closing = asyncio.create_task(client.is_closed(20))
        await until(lambda: process.lines or process.process.returncode is not None, "the command's answer", 20)
        done = time.monotonic()
        assert await closing, "the session lives on"
        assert time.monotonic() - done < 1.0
        assert await process.wait() == 0, process.errors


async def test_a_kicked_device_may_come_back_and_a_disabled_one_may_not(service: Running, spawned: Command) -> None:
    await load_rows(service, devices.PRODUCT, dict(devices.DEVICE))
    await spawned("device", "kick", "pk1", "dk1")
    async with devices.device(service.ports["mqtt"], devices.login()):
        pass
    await spawned("device", "disable", "pk1", "dk1")
    with pytest.raises(aiomqtt.MqttError):
        async with devices.device(service.ports["mqtt"], devices.login()):
            pass


async def test_a_new_secret_has_the_form_of_the_vendor(command: Command) -> None:
    await command("product", "create", "P", "--protocol", "tencent")
    made = (await command("device", "create", "P", "d", "--protocol", "tencent", "--json")).row
    await command("device", "reset", "P", "d", "--protocol", "tencent")
    now = (await command("device", "show", "P", "d", "--protocol", "tencent", "--reveal", "--json")).row
    assert re.fullmatch("[A-Za-z0-9+/]{22}==", now["secret"])
    assert now["secret"] != made["secret"]
