import asyncio
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from provisioning import settings
from provisioning.images import DiskImages, ImageError, Images, open_images
from provisioning.images.s3 import S3Images
from provisioning.model.update import Image
from tests.aws import Account
from tests.provisioning.images.conftest import CHECKSUM, CONTENT, Bytes

pytestmark = pytest.mark.server

VECTORS = json.loads((Path(__file__).parents[2] / "vectors.json").read_text("utf-8"))["ioto"]["checksum"]


@pytest.fixture(params=["disk", "s3"])
async def images(request: pytest.FixtureRequest, bucket: Account, tmp_path: Path) -> AsyncIterator[Images]:
    more: dict[str, Any] = {"data_dir": tmp_path / "data"}
    if request.param == "s3":
        more = {"aws": bucket.settings, "images": {"store": "s3", "bucket": "fleet", "prefix": "some/images/"}}
    async with open_images(settings.load(**more)) as opened:
        yield opened


@pytest.mark.parametrize("vector", VECTORS, ids=[each["name"] for each in VECTORS])
async def test_an_image_is_found_by_its_checksum(images: Images, file: Path, vector: dict[str, Any]) -> None:
    content = vector["inputs"]["image_utf8"].encode()
    await asyncio.to_thread(file.write_bytes, content)
    told = Bytes()
    assert await images.put(file, told) == Image(vector["expected"], len(content))
    assert sum(told.told) == len(content)
    assert await images.size(vector["expected"]) == len(content)
    assert await images.all() == [vector["expected"]]


async def test_the_same_content_is_stored_once(images: Images, file: Path) -> None:
    for _ in range(2):
        told = Bytes()
        assert await images.put(file, told) == Image(CHECKSUM, len(CONTENT))
        assert sum(told.told) == len(CONTENT)
    assert await images.all() == [CHECKSUM]


async def test_what_is_removed_is_gone(images: Images, file: Path) -> None:
    await images.put(file, Bytes())
    assert await images.remove(CHECKSUM)
    assert await images.size(CHECKSUM) is None
    assert not await images.remove(CHECKSUM)
    assert await images.all() == []


async def test_a_damaged_image_is_whole_again_when_it_is_put_again(images: Images, file: Path) -> None:
    await images.put(file, Bytes())
    await damage(images, CONTENT[:-1])
    assert await images.size(CHECKSUM) == len(CONTENT) - 1
    await images.put(file, Bytes())
    assert await images.size(CHECKSUM) == len(CONTENT)


async def damage(images: Images, content: bytes) -> None:
    if isinstance(images, DiskImages):
        images.path(CHECKSUM).write_bytes(content)
    else:
        assert isinstance(images, S3Images)
        s3 = await images._aws.client("s3")
        await s3.put_object(**images._at(CHECKSUM), Body=content)


async def test_what_is_no_checksum_leads_nowhere(images: Images) -> None:
    for name in ("", "..", "../../etc/passwd", CHECKSUM.upper(), CHECKSUM[1:], f"{CHECKSUM}/x", f"{CHECKSUM}\n"):
        for verb in (images.size, images.remove):
            with pytest.raises(ValueError, match="64 hex digits"):
                await verb(name)


async def test_a_file_that_cannot_be_read_is_told(images: Images, tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=f"^there is no file {tmp_path}/nothing$"):
        await images.put(tmp_path / "nothing", Bytes())
    with pytest.raises(ImageError, match=r" is no file$"):
        await images.put(tmp_path, Bytes())
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ImageError, match=r" is no file$"):
        await images.put(tmp_path / "pipe", Bytes())
    assert await images.all() == []
