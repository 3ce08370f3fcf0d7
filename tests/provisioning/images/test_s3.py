import asyncio
import hashlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from provisioning import sections, settings
from provisioning.aws import Aws
from provisioning.images import ImageError, open_images
from provisioning.images import s3 as module
from provisioning.images.s3 import S3Images
from provisioning.model.update import Image
from tests.aws import Account
from tests.provisioning.images.conftest import CHECKSUM, Bytes

pytestmark = pytest.mark.server


@pytest.fixture
async def s3(bucket: Account) -> AsyncIterator[S3Images]:
    async with Aws(sections.Aws(**bucket.settings)) as aws:
        yield S3Images(aws, "fleet", "")


async def content_of(images: S3Images, checksum: str, first: int, last: int) -> bytes:
    async with images.read(checksum, first, last) as chunks:
        return b"".join([chunk async for chunk in chunks])


async def test_a_large_image_goes_up_in_parts(s3: S3Images, bucket: Account, tmp_path: Path) -> None:
    content = bytes(range(256)) * 40_000  # 10,240,000 bytes: two parts
    (tmp_path / "large").write_bytes(content)
    told = Bytes()
    image = await s3.put(tmp_path / "large", told)
    assert image == Image(hashlib.sha256(content).hexdigest(), len(content))
    assert told.told == [module.PART, len(content) - module.PART]
    assert hashlib.sha256(await content_of(s3, image.checksum, 0, image.size - 1)).hexdigest() == image.checksum
    assert await content_of(s3, image.checksum, 257, 258) == b"\1\2"
    listed = await asyncio.to_thread(bucket.client("s3").list_multipart_uploads, Bucket="fleet")
    assert "Uploads" not in listed


async def test_a_file_that_changes_while_it_goes_up_is_refused(
    s3: S3Images, bucket: Account, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    large = tmp_path / "large"
    large.write_bytes(bytes(module.PART + 1))

    def change(_count: int) -> None:
        with large.open("r+b") as file:
            file.seek(module.PART)
            file.write(b"x")

    with pytest.raises(ImageError, match="changes while it is read"):
        await s3.put(large, change)
    listed = await asyncio.to_thread(bucket.client("s3").list_multipart_uploads, Bucket="fleet")
    assert "Uploads" not in listed
    assert await s3.all() == []


async def test_a_bucket_that_is_not_there_is_told(aws: Account, file: Path) -> None:
    stated = settings.load(aws=aws.settings, images={"store": "s3", "bucket": "nowhere"})
    async with open_images(stated) as images:
        with pytest.raises(ImageError, match=r"^S3 refuses: NoSuchBucket: "):
            await images.put(file, Bytes())
        with pytest.raises(ImageError, match=r"^S3 refuses: NoSuchBucket: "):
            await images.all()


async def test_an_s3_that_is_away_is_told(file: Path, unused_tcp_port: int) -> None:
    aws = {"endpoint": f"http://127.0.0.1:{unused_tcp_port}", "access_key_id": "a", "secret_access_key": "b"}
    async with open_images(settings.load(aws=aws, images={"store": "s3", "bucket": "fleet"})) as images:
        with pytest.raises(ImageError, match=r"^S3 cannot be used: "):
            await images.put(file, Bytes())
        with pytest.raises(ImageError, match=r"^S3 cannot be used: "):
            await images.size(CHECKSUM)


def test_s3_needs_a_bucket() -> None:
    with pytest.raises(settings.SettingsError, match="store s3 needs a bucket"):
        settings.load(images={"store": "s3"})


async def test_parts_that_a_killed_publisher_left_are_taken_away(s3: S3Images, bucket: Account) -> None:
    client = await s3._aws.client("s3")
    await client.create_multipart_upload(**s3._at(CHECKSUM))
    # The upload begins in 2010, whatever the clock says: so the stand-in has it.
    for before, left in ((datetime(2010, 1, 1, tzinfo=UTC), 1), (datetime(2011, 1, 1, tzinfo=UTC), 0)):
        await s3.tidy(before)
        listed = await asyncio.to_thread(bucket.client("s3").list_multipart_uploads, Bucket="fleet")
        assert len(listed.get("Uploads", ())) == left
