"""provisioning/cli/webhook.py"""

from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest

from provisioning.store import webhooks
from provisioning.store.database import Database
from provisioning.store.webhooks import Limits, Result
from tests.certificates import run
from tests.provisioning.cli.conftest import Command
from tests.ublox import KEY, OTHER_KEY, make_account

pytestmark = pytest.mark.server

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
A, B = "https://a.example/", "https://b.example/"


async def die(database: Database, account_id: int, subject: str) -> list[int]:
    """Events about a subject that could not be delivered; the ids of their deliveries."""
    async with database.begin() as tx:
        await webhooks.enqueue(tx, account_id, kind="K", subject=subject, body="{}", now=NOW)
        found, _ = await webhooks.claim(
            tx, now=NOW, until=NOW + timedelta(seconds=30), lease=uuid4(), busy=(), limits=Limits()
        )
        await webhooks.finish(
            tx, [Result(lane=each.lane, lease=each.lease, id=each.id, dead_at=NOW, error="answered 500")
                 for each in found],
        )  # fmt: skip
        return [each.id for each in found]


async def test_list_dead_replay(command: Command, database: Database) -> None:
    one, other = await make_account(database), await make_account(database, OTHER_KEY)
    for account, url in ((one, A), (one, B), (other, A)):
        await run(database, webhooks.add, account.id, url, "K", token="Bearer secret", now=NOW)
    first, second = await die(database, one.id, "d1")
    third, fourth = await die(database, one.id, "d2")
    (theirs,) = await die(database, other.id, "d3")
    listed = await command("webhook", "list")
    assert [row[1:] for row in listed.table] == [
        [KEY, "K", "0", "2", A], [KEY, "K", "0", "2", B], [OTHER_KEY, "K", "0", "1", A],
    ]  # fmt: skip
    assert "secret" not in listed.out
    (only,) = (await command("webhook", "list", "--account", OTHER_KEY, "--json")).rows
    assert (only["account"], only["url"], only["type"], only["dead"], only["waiting"]) == (OTHER_KEY, A, "K", 1, 0)
    dead = (await command("webhook", "dead", "--json")).rows
    assert [row["id"] for row in dead] == [first, second, third, fourth, theirs]
    assert {name: dead[0][name] for name in dead[0] if name not in {"id", "url"}} == {
        "account": KEY, "type": "K", "subject": "d1", "created_at": NOW.isoformat(), "dead_at": NOW.isoformat(),
        "attempts": 1, "error": "answered 500",
    }  # fmt: skip
    assert [row[0] for row in (await command("webhook", "dead", "--account", OTHER_KEY)).table] == [str(theirs)]
    at_b = [row["id"] for row in (await command("webhook", "dead", "--url", B, "--json")).rows]
    assert len(at_b) == 2
    assert len((await command("webhook", "dead", "--limit", "2")).table) == 2

    assert (await command("webhook", "replay", str(theirs), "999")).out == "replayed 1 dead letter\n"
    again = await command("webhook", "replay", str(theirs), code=1)
    assert again.err == "gatehouse: none of these is a dead letter\n"
    assert (await command("webhook", "replay", "--url", B, "--json")).row == {"outcome": "replayed", "deliveries": 2}
    assert (await command("webhook", "replay", "--account", OTHER_KEY)).out == "replayed 0 dead letters\n"
    assert (await command("webhook", "replay", "--all")).out == "replayed 2 dead letters\n"
    assert (await command("webhook", "dead")).out == ""
    assert await run(database, webhooks.depth) == (5, 0)


@pytest.mark.parametrize("args", [(), ("1", "--all"), ("--all", "--url", A), ("1", "--account", KEY), ("0",), ("x",)])
async def test_what_is_to_be_replayed_must_be_said(command: Command, args: tuple[str, ...]) -> None:
    assert "replay" in (await command("webhook", "replay", *args, code=2)).err
