from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from provisioning.cli import doctor_database
from provisioning.cli.doctor import Finding, Level
from provisioning.core import ca
from provisioning.store import diagnosis, products
from provisioning.store.database import Database
from tests.certificates import KEY, NOW, days, run
from tests.conftest import settings_for
from tests.databases import fresh_database

pytestmark = pytest.mark.server


async def examined(url: str, **more: Any) -> tuple[dict[str, Finding], bool]:
    """Findings by check (of several the last one), and whether more can be asked of the database."""
    opened: list[doctor_database.Opened] = []
    async with AsyncExitStack() as stack:
        settings = settings_for(url, **more)
        found = {each.check: each async for each in doctor_database.examine(settings, stack, opened)}
    return found, bool(opened)


async def test_a_sound_database(database_url: str) -> None:
    found, opened = await examined(database_url)
    assert opened
    assert {each.status for each in found.values()} == {Level.OK}
    assert found.keys() == {"database", "migrations", "master key", "database clock", "notifications", "clock"}


async def test_one_that_is_not_migrated_stays_so(postgres: str) -> None:
    async with fresh_database(postgres, "template0") as url:
        found, opened = await examined(url)
        assert not opened
        assert found["migrations"].status is Level.WARNING
        assert found["migrations"].finding.startswith("not applied yet: 0001 registry, ")
        assert "master key" not in found
        assert (await examined(url))[0]["migrations"].status is Level.WARNING


@pytest.mark.parametrize(
    ("statement", "words"),
    [
        ("INSERT INTO migration VALUES (9999, 'x', 'x')", "it has 9999, which this release does not know"),
        ("UPDATE migration SET digest = 'x' WHERE number = 2", "0002 was applied with another text"),
    ],
)
async def test_one_of_another_release(database_url: str, database: Database, statement: str, words: str) -> None:
    async with database.begin() as tx:
        await tx.db.execute(statement)
    found, _ = await examined(database_url)
    assert (found["migrations"].status, found["migrations"].finding) == (Level.PROBLEM, words)


async def test_another_master_key(database_url: str, tmp_path: Path) -> None:
    found, opened = await examined(database_url, master_key="00" * 32)
    assert (found["master key"].status, opened) == (Level.PROBLEM, False)
    found, opened = await examined(database_url, master_key=None, data_dir=tmp_path)
    assert ("master key" in found, opened) == (False, False), "without a key there is nothing to say of it here"
    assert not (tmp_path / "master.key").exists()


@pytest.mark.parametrize("url", ["postgresql://u:hush@localhost:1/x", "postgresql://u:hu#sh@localhost:1/x", "hush"])
async def test_one_that_cannot_be_reached(url: str) -> None:
    found, opened = await examined(url)
    assert (found["database"].status, opened) == (Level.PROBLEM, False)
    assert "hush" not in found["database"].finding
    assert "GATEHOUSE_DATABASE__URL" in found["database"].advice


async def test_none_yet(tmp_path: Path) -> None:
    found, _ = await examined("", database={"url": None}, data_dir=tmp_path)
    assert found["database"].status is Level.WARNING
    assert not (tmp_path / "postgres").exists()


async def test_the_embedded_one_that_does_not_start(data_directory: Path) -> None:
    (data_directory / "postgres").mkdir()
    (data_directory / "postgres" / "PG_VERSION").write_text("1")
    found, _ = await examined("", database={"url": None}, data_dir=data_directory)
    assert found["database"].status is Level.PROBLEM
    assert "does not start" in found["database"].finding


@pytest.mark.parametrize(
    ("seconds", "status"),
    [
        (0, Level.OK),
        (4, Level.OK),
        (6, Level.WARNING),
        (-6, Level.WARNING),
        (301, Level.PROBLEM),
        (-301, Level.PROBLEM),
    ],
)
def test_the_clocks(seconds: int, status: Level) -> None:
    now = datetime.now(UTC)
    before = now - timedelta(seconds=0.5)
    found = doctor_database._clock(now + timedelta(seconds=seconds), before, now)
    assert found.status is status
    if status is not Level.OK:
        assert ("ahead of" if seconds > 0 else "behind") in found.finding


def test_a_slow_answer_is_no_wrong_clock() -> None:
    now = datetime.now(UTC)
    assert doctor_database._clock(now, now - timedelta(seconds=30), now + timedelta(seconds=30)).status is Level.OK


async def test_a_clock_before_the_newest_certificate(database_url: str, database: Database) -> None:
    await run(database, ca.create, "acme", KEY, now=NOW + days(1))
    found, _ = await examined(database_url)
    assert found["clock"].status is Level.PROBLEM


async def test_the_demo_fleet(database_url: str, database: Database) -> None:
    from provisioning.model.registry import Product

    async with database.begin() as tx:
        await products.add(tx, Product(protocol="enos", key="demopump", secret="s", demo=True))
    found, _ = await examined(database_url)
    assert (found["demo fleet"].status, found["demo fleet"].advice) == (
        Level.WARNING, "gatehouse product delete demopump --protocol enos --cascade",
    )  # fmt: skip


async def test_a_pooler_that_swallows_notifications(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As behind a pooler in transaction mode: what is notified goes to another channel."""
    monkeypatch.setattr(diagnosis, "NOTIFY", "SELECT pg_notify($1 || 'x', $2)")
    monkeypatch.setattr(doctor_database, "NOTIFY_TIMEOUT", 0.1)
    found, _ = await examined(database_url)
    assert found["notifications"].status is Level.PROBLEM


def test_a_standby() -> None:
    server = diagnosis.Server("16.1", 160_001, True, NOW, (), (), (), None)
    (first, *_) = doctor_database._of_server(server)
    assert (first.status, "standby" in first.finding) == (Level.PROBLEM, True)
