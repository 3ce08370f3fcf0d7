import asyncio
import hashlib
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from provisioning import rollout
from provisioning.app import log_events
from provisioning.core import links, updates
from provisioning.images import DiskImages, ImageError, Progress
from provisioning.model.events import UpdateStopped
from provisioning.model.identity import Identity
from provisioning.model.refusal import Reason, Refusal
from provisioning.model.update import Image, Update
from provisioning.store.database import Database
from tests.conftest import Serve
from tests.provisioning.store.registry import PROTOCOL, add_device, add_product

pytestmark = pytest.mark.server

CONTENT = b"firmware-1.4.0"
CHECKSUM = hashlib.sha256(CONTENT).hexdigest()


def silent(_count: int) -> None:
    """Nobody watches."""


def new(version: str = "1.4.0", **more: Any) -> Update:
    fields: dict[str, Any] = {"protocol": PROTOCOL, "product": "pk", "checksum": "", "size": 0, "file": "fw.bin"}
    return Update(version=version, **fields | more)


@pytest.fixture
def image(tmp_path: Path) -> Path:
    (tmp_path / "fw.bin").write_bytes(CONTENT)
    return tmp_path / "fw.bin"


@pytest.fixture
def images(tmp_path: Path) -> DiskImages:
    return DiskImages(tmp_path / "images")


@pytest.fixture(autouse=True)
async def _product(database: Database) -> None:
    async with database.begin() as tx:
        await add_device(tx, await add_product(tx), "d")


async def test_an_image_lives_as_long_as_its_updates(database: Database, images: DiskImages, image: Path) -> None:
    made = [await rollout.publish(database, images, new(version), image, silent) for version in ("1.4.0", "1.5.0")]
    assert [(each.checksum, each.size) for each in made] == [(CHECKSUM, 14)] * 2
    assert (await rollout.delete(database, images, made[0].name)).version == "1.4.0"
    assert await images.all() == [CHECKSUM]
    await rollout.delete(database, images, made[1].name)
    assert await images.all() == []


@pytest.mark.parametrize("wrong", [{"policy": "a ="}, {"version": "x"}, {"product": "nope"}])
async def test_what_is_refused_stores_nothing(
    database: Database, images: DiskImages, image: Path, wrong: dict[str, str]
) -> None:
    with pytest.raises(Refusal):
        await rollout.publish(database, images, new(**wrong), image, silent)
    assert await images.all() == []


async def test_a_product_that_goes_meanwhile_leaves_no_image(database: Database, tmp_path: Path, image: Path) -> None:
    class Slow(DiskImages):
        async def put(self, source: Path, progress: Progress) -> Image:
            async with database.begin() as tx:
                await tx.db.execute("DELETE FROM device")
                await tx.db.execute("DELETE FROM product")
            return await super().put(source, progress)

    images = Slow(tmp_path / "images")
    with pytest.raises(Refusal) as caught:
        await rollout.publish(database, images, new(), image, silent)
    assert caught.value.reason is Reason.UNKNOWN
    assert await images.all() == []


async def test_an_image_that_is_taken_away_before_it_is_used_is_stored_again(
    database: Database, tmp_path: Path, image: Path
) -> None:
    class Hasty(DiskImages):
        puts = 0
        lost = 1

        async def put(self, source: Path, progress: Progress) -> Image:
            found = await super().put(source, progress)
            self.puts += 1
            if self.puts <= self.lost:  # another process deletes the last update that had it
                assert await rollout.drop(database, self, found.checksum)
            return found

    images = Hasty(tmp_path / "images")
    await rollout.publish(database, images, new(), image, silent)
    assert images.puts == 2
    assert await images.all() == [CHECKSUM]
    await rollout.delete(database, images, "upd1")
    images.lost = 99
    with pytest.raises(ImageError, match="is taken away each time"):
        await rollout.publish(database, images, new(), image, silent)


async def test_publishing_and_deleting_at_once(database: Database, images: DiskImages, image: Path) -> None:
    async def life(number: int) -> None:
        for turn in range(3):
            made = await rollout.publish(database, images, new(f"1.{number}.{turn}"), image, silent)
            assert await images.size(CHECKSUM) == 14
            await rollout.delete(database, images, made.name)

    await asyncio.gather(*(life(number) for number in range(4)))
    assert await images.all() == []
    kept = await rollout.publish(database, images, new(), image, silent)
    assert await images.size(kept.checksum) == 14


async def test_sweeping_takes_what_nobody_uses(database: Database, images: DiskImages, image: Path) -> None:
    await rollout.publish(database, images, new(), image, silent)
    await asyncio.to_thread(image.write_bytes, b"left")
    left = await images.put(image, silent)
    assert await rollout.sweep(database, images) == 1
    assert await images.all() == [CHECKSUM]
    assert left.checksum != CHECKSUM
    assert await rollout.sweep(database, images) == 0


async def test_from_the_publisher_to_the_device(serve: Serve, tmp_path: Path, image: Path) -> None:
    running = await serve(data_dir=tmp_path)
    database, now = running.database, datetime.now(UTC)
    await rollout.publish(database, DiskImages(tmp_path / "images"), new(), image, silent)
    async with database.begin() as tx:
        offer = await updates.offer(
            tx, protocol=PROTOCOL, product="pk", device="d", fields={}, test=False, version="1.3.0", now=now
        )  # fmt: skip
    assert offer
    key = database.sealer.derive(links.PURPOSE)
    async with aiohttp.ClientSession() as session:
        link = links.sign_link(f"http://127.0.0.1:{running.http.port}", key, offer, now)
        async with session.get(link) as response:
            body = await response.read()
    assert response.status == 200
    assert hashlib.sha256(body).hexdigest() == offer.checksum


def test_the_log_tells_which_update_stopped_and_why(caplog: pytest.LogCaptureFixture, capsys: Any) -> None:
    from structlog.testing import capture_logs

    event = UpdateStopped(device_id=1, identity=Identity("p", "pk", "d"), update="upd1", why="3 of 5 …")
    with capture_logs() as lines:
        log_events([event])
    assert [(line["event"], line["update"], line["why"]) for line in lines] == [("update.stopped", "upd1", "3 of 5 …")]
