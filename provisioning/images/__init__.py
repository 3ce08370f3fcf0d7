"""Images of updates, each stored once under what it is: the SHA-256 of its content.

store   what a store is
disk    in a directory
s3      in S3, or in what speaks its API
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from provisioning.images.disk import DiskImages
from provisioning.images.store import ImageError, Images, Progress, RemoteImages
from provisioning.settings import Settings

__all__ = ["DiskImages", "ImageError", "Images", "Progress", "RemoteImages", "open_images"]


@asynccontextmanager
async def open_images(stated: Settings) -> AsyncIterator[DiskImages | RemoteImages]:
    """The store of the settings."""
    if stated.images.store == "disk":
        yield DiskImages(stated.data_dir / "images")
        return
    from provisioning.aws import Aws  # noqa: PLC0415 - half a second and 20 MiB that most services need not spend
    from provisioning.images.s3 import S3Images  # noqa: PLC0415

    assert stated.images.bucket is not None
    async with Aws(stated.aws) as aws:
        yield S3Images(aws, stated.images.bucket, stated.images.prefix)
