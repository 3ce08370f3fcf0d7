import hashlib
from pathlib import Path

import pytest
import typer

from provisioning import settings
from provisioning.cli.update import read_rate, write_rate
from provisioning.images import DiskImages
from tests.provisioning.cli.conftest import Command

pytestmark = pytest.mark.server

CONTENT = b"firmware-1.4.0"
CHECKSUM = hashlib.sha256(CONTENT).hexdigest()
PROTOCOL = ("--protocol", "enos")
"""Updates are the same for all protocols; this one's products are the simplest."""


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "fw 1.4.bin"
    path.write_bytes(CONTENT)
    return path


@pytest.fixture
async def images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: Command) -> DiskImages:
    """The store of the commands of this test, and a product `pk1`."""
    monkeypatch.setenv("GATEHOUSE_DATA_DIR", str(tmp_path / "data"))
    await command("product", "create", "pk1")
    return DiskImages(settings.load().data_dir / "images")


async def test_publish_show_list_stop_delete(command: Command, images: DiskImages, image: Path) -> None:
    published = await command(
        "update", "publish", str(image), "--product", "pk1", "--version", "v1.4", "--policy", 'model == "m1"',
        "--percent", "20", "--max", "500", "--rate", "30/m", "--test", "--json", *PROTOCOL,
    )  # fmt: skip
    made = published.row
    assert published.err == ""
    assert (made["update"], made["product"], made["version"], made["state"]) == ("upd1", "pk1", "1.4.0", "live")
    assert (made["policy"], made["percentage"], made["max_devices"], made["rate"]) == ('model == "m1"', 20, 500, "30/m")
    assert (made["test"], made["checksum"], made["size"], made["file"]) == (True, CHECKSUM, 14, "fw_1.4.bin")
    assert await images.size(CHECKSUM) == 14
    assert (await command("update", "show", "upd1", "--json", *PROTOCOL)).row == made
    listed = await command("update", "list", "--product", "pk1", *PROTOCOL)
    assert listed.table == [["upd1", "pk1", "1.4.0", "live", "20", "yes", "0", "0", "0"]]
    assert (await command("update", "list", "--product", "pk2", *PROTOCOL)).out == ""
    assert (await command("update", "stop", "upd1", *PROTOCOL)).out == "stopped upd1\n"
    stopped = (await command("update", "show", "upd1", "--json", *PROTOCOL)).row
    assert (stopped["state"], stopped["why_stopped"]) == ("stopped", "by an administrator")
    again = await command("update", "stop", "upd1", *PROTOCOL, code=1)
    assert again.err == "gatehouse: upd1 is stopped already\n"
    assert (await command("update", "delete", "upd1", *PROTOCOL)).out == "deleted update upd1\n"
    assert await images.size(CHECKSUM) is None
    assert (await command("update", "show", "upd1", *PROTOCOL, code=1)).err == "gatehouse: there is no update upd1\n"


async def test_what_nobody_states(command: Command, images: DiskImages, image: Path) -> None:
    made = (
        await command("update", "publish", str(image), "--product", "pk1", "--version", "1.4.0", "--json", *PROTOCOL)
    ).row
    assert (made["policy"], made["percentage"], made["max_devices"], made["rate"]) == ("", 100, None, None)
    assert (made["test"], made["offered"], made["succeeded"], made["failed"]) == (False, 0, 0, 0)


async def test_an_image_stays_as_long_as_an_update_has_it(command: Command, images: DiskImages, image: Path) -> None:
    for version in ("1.4.0", "1.4.1"):
        await command("update", "publish", str(image), "--product", "pk1", "--version", version, *PROTOCOL)
    assert await images.all() == [CHECKSUM]
    await command("update", "delete", "upd1", *PROTOCOL)
    assert await images.size(CHECKSUM) == 14
    deleted = await command("update", "delete", "upd2", "--json", *PROTOCOL)
    assert deleted.row == {"outcome": "deleted", "type": "update", "name": "upd2", "devices": 0}
    assert await images.size(CHECKSUM) is None


async def test_what_a_deleted_product_leaves_is_swept_away(command: Command, images: DiskImages, image: Path) -> None:
    await command("update", "publish", str(image), "--product", "pk1", "--version", "1.4.0", *PROTOCOL)
    assert (await command("update", "sweep", *PROTOCOL)).out == "deleted 0 images\n"
    await command("product", "delete", "pk1")
    assert (await command("update", "sweep", "--json", *PROTOCOL)).row["images"] == 1
    assert await images.all() == []


async def test_refusals_are_one_line_and_leave_nothing(command: Command, images: DiskImages, image: Path) -> None:
    for file, product, version, more, words in (
        (str(image), "nope", "1.4.0", (), "there is no product nope"),
        (str(image), "pk1", "next", (), "version must be a version like 1.4.0 or 1.4.0-rc.1 (SemVer)"),
        (
            str(image),
            "pk1",
            "1.4.0",
            ("--policy", "model = 1"),
            "policy is wrong at column 7: a comparison is written ==",
        ),
        (f"{image}x", "pk1", "1.4.0", (), f"there is no file {image}x"),
        (str(image.parent), "pk1", "1.4.0", (), f"{image.parent} is no file"),
    ):
        args = ("--product", product, "--version", version, *more, *PROTOCOL)
        assert (await command("update", "publish", file, *args, code=1)).err == f"gatehouse: {words}\n"
    assert await images.all() == []
    for verb in ("show", "stop", "delete"):
        assert (await command("update", verb, "upd7", *PROTOCOL, code=1)).err == "gatehouse: there is no update upd7\n"
    for more in (("--percent", "0"), ("--max", "0"), ("--rate", "fast")):
        args = ("--product", "pk1", "--version", "1.4.0", *more, *PROTOCOL)
        assert more[0] in (await command("update", "publish", str(image), *args, code=2)).err


async def test_a_store_that_takes_nothing_is_told(command: Command, images: DiskImages, image: Path) -> None:
    images.path(CHECKSUM).parents[2].mkdir(exist_ok=True)
    images.path(CHECKSUM).parents[1].write_text("")
    args = ("--product", "pk1", "--version", "1.4.0", *PROTOCOL)
    refused = await command("update", "publish", str(image), *args, code=1)
    assert refused.err.startswith("gatehouse: cannot use ")
    assert refused.err.count("\n") == 1


@pytest.mark.parametrize(
    ("text", "rate", "period", "written"),
    [
        (None, None, 3_600, None), ("100", 100, 3_600, "100/h"), ("5/s", 5, 1, "5/s"), ("30/m", 30, 60, "30/m"),
        ("7/h", 7, 3_600, "7/h"), ("9/d", 9, 86_400, "9/d"),
    ],
)  # fmt: skip
def test_rates(text: str | None, rate: int | None, period: int, written: str | None) -> None:
    assert read_rate(text) == (rate, period)
    assert write_rate(rate, period) == written


@pytest.mark.parametrize("text", ["", "0", "-1", "x", "1/x", "1/", "1.5/h", "9999999999", "1/h\n"])
def test_what_is_no_rate(text: str) -> None:
    with pytest.raises(typer.BadParameter):
        read_rate(text)
