"""What an account's administrators do over HTTP, with a user token."""

from datetime import UTC, datetime
from typing import Any

import pytest

from provisioning.app import Running
from provisioning.model.claim import Told
from provisioning.model.lifecycle import State
from provisioning.model.registry import Device
from provisioning.protocols.ioto import users, wire
from provisioning.store.claims import Record
from tests.conftest import Serve
from tests.provisioning.protocols.ioto.conftest import DEVICE, OTHER_TOKEN, TOKEN, USER_TOKEN, Agent, Lines, Reply

pytestmark = pytest.mark.server
VERBS = ("claim", "release", "get", "find")


async def ask(agent: Agent, verb: str, **body: Any) -> Reply:
    return await agent.post(f"/tok/device/{verb}", body, f"bearer {USER_TOKEN}")


async def test_a_life(agent: Agent) -> None:
    await agent.register(test=True)
    record = (await ask(agent, "claim", id=DEVICE)).body
    assert (record["id"], record["accountId"], record["test"]) == (DEVICE, "00000000000000000000000001", True)
    assert record["product"] == record["productId"] == wire.product_key(TOKEN)
    token = (await agent.register()).body["token"]
    await agent.checkin(token, version="1.3.0")
    record = (await ask(agent, "get", id=DEVICE)).body
    assert (record["version"], record["test"]) == ("1.3.0", False)
    assert {"created", "accessed", "checked"} <= record.keys()
    assert "accountId" not in (await ask(agent, "release", id=DEVICE)).body
    (await agent.checkin(token)).refused(403, "Authentication failed")
    (await ask(agent, "release", id=DEVICE)).refused(400, "Device is not claimed")


async def test_a_device_is_not_taken_from_another_account(agent: Agent) -> None:
    await agent.claimed()
    assert (await ask(agent, "claim", id=DEVICE, account="ACC1", cloud="main")).body["accountId"] == "ACC1"
    refused = await ask(agent, "claim", id=DEVICE, accountId="ACC2")
    refused.refused(400, "Device is claimed by account ACC1 in cloud main (hosted, local)")


async def test_who_may_not(agent: Agent, serve: Serve) -> None:
    token = await agent.claimed()
    for verb in VERBS:
        for shown in (None, "", "bearer", "wrong", token, TOKEN, USER_TOKEN + "x"):
            (await agent.post(f"/device/{verb}", {"id": DEVICE}, shown)).refused(403, "Access denied")
    agent.running = await serve()  # without a setting nobody may
    for shown in (USER_TOKEN, "None", ""):
        (await agent.post("/device/get", {"id": DEVICE}, shown)).refused(403, "Access denied")


async def test_what_is_wrong(agent: Agent) -> None:
    for verb in ("claim", "release", "get"):
        (await ask(agent, verb, id="NOBODY")).refused(400, "Unknown device")
        (await ask(agent, verb)).refused(400, "Missing device id")
        (await ask(agent, verb, id="x" * 65)).refused(400, "Invalid device id")
    (await ask(agent, "find", limit="many")).refused(400, "Invalid limit")


async def test_pages(agent: Agent) -> None:
    for number in range(5):
        await agent.register(f"D{number}")
    await agent.register("OTHER", OTHER_TOKEN)
    await agent.claimed("D4")

    async def page(**asked: Any) -> tuple[list[str], dict[str, Any]]:
        reply = (await ask(agent, "find", **asked)).body
        return [each["id"] for each in reply.pop("data")], reply

    assert await page() == (["D0", "D1", "D2", "D3", "D4", "OTHER"], {})
    assert await page(product=OTHER_TOKEN) == (["OTHER"], {})
    assert await page(accountId="ACC1") == (["D4"], {})
    assert await page(accountId="NOBODY") == ([], {})
    first, on = await page(product=TOKEN, limit=2)
    assert (first, set(on)) == (["D0", "D1"], {"next"})
    second, on = await page(product=TOKEN, limit=2, next=on["next"])
    assert (second, set(on)) == (["D2", "D3"], {"next", "prev"})
    third, _ = await page(product=TOKEN, limit=2, next=on["next"])
    assert third == ["D4"]
    back, on = await page(product=TOKEN, limit=2, prev=on["prev"])
    assert (back, set(on)) == (["D0", "D1"], {"next"})


async def test_the_log_does_not_show_the_user_token(agent: Agent, lines: Lines, running: Running) -> None:
    await agent.register()
    await ask(agent, "claim", id=DEVICE)
    assert [line["device"] for line in lines if line["event"] == "http.device_claim"] == [DEVICE]
    assert USER_TOKEN not in repr(lines)


def test_what_is_not_known_is_not_there() -> None:
    device = Device(protocol="ioto", state=State.REGISTERED, product="P", key="D")
    assert users.write_record(Record(device=device, claim=None, told=Told())) == {
        "id": "D", "product": "P", "productId": "P", "test": False,
    }  # fmt: skip
    seen = Told(checked_at=datetime(2030, 1, 1, tzinfo=UTC))
    assert users.write_record(Record(device=device, claim=None, told=seen))["checked"] == "2030-01-01T00:00:00.000Z"
