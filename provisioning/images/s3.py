"""Images of updates in S3, or in what speaks its API: `<prefix>/41/41bb2091…07fe7f` in one bucket.

Each request carries the SHA-256 of its body, and S3 refuses what does not arrive as it was sent (S3 user guide,
"Checking object integrity"). An object appears when it is complete.
"""

import asyncio
import hashlib
from base64 import b64encode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from provisioning.aws import Aws, AwsError
from provisioning.images.store import CHECKSUM, ImageError, Progress, checked, read_file
from provisioning.model.update import Image

SERVICE: Final = "s3"
PART: Final = 8 * 1_048_576
"""Bytes of a part, 5 MiB at least; an object that fits into one is not divided."""
MOST_PARTS: Final = 10_000
"""What S3 takes for one object: 78 GiB at this size."""
CHUNK: Final = 65_536
GONE: Final = frozenset({"404", "NoSuchKey", "NotFound"})


class S3Images:
    def __init__(self, aws: Aws, bucket: str, prefix: str) -> None:
        self._aws = aws
        self._bucket = bucket
        self._prefix = f"{prefix.strip('/')}/" if prefix.strip("/") else ""

    def _at(self, checksum: str) -> dict[str, str]:
        return {"Bucket": self._bucket, "Key": f"{self._prefix}{checked(checksum)[:2]}/{checksum}"}

    @asynccontextmanager
    async def _client(self, *, deadline: bool = True) -> AsyncIterator[Any]:
        """Raises: ImageError."""
        try:
            client = await self._aws.client(SERVICE)
            async with self._aws.errors(SERVICE, deadline=deadline):
                yield client
        except AwsError as error:
            raise ImageError(str(error)) from error

    async def put(self, source: Path, progress: Progress) -> Image:
        image = await asyncio.to_thread(_look, source)
        if await self.size(image.checksum) == image.size:
            progress(image.size)
            return image
        if image.size > PART * MOST_PARTS:
            raise ImageError(f"{source} has more than {PART * MOST_PARTS} bytes")
        async with self._client(deadline=False) as s3:
            if image.size <= PART:
                await self._put_whole(s3, source, image)
                progress(image.size)
            else:
                await self._put_parts(s3, source, image, progress)
        if await self.size(image.checksum) != image.size:
            raise ImageError(f"S3 does not keep what is put into {self._bucket}")
        return image

    async def _put_whole(self, s3: Any, source: Path, image: Image) -> None:
        body = b"".join(await asyncio.to_thread(lambda: list(read_file(source))))
        if hashlib.sha256(body).hexdigest() != image.checksum:
            raise _changed(source)
        await s3.put_object(**self._at(image.checksum), Body=body, ChecksumSHA256=_base64(body))

    async def _put_parts(self, s3: Any, source: Path, image: Image, progress: Progress) -> None:
        at = self._at(image.checksum)
        upload = at | {"UploadId": (await s3.create_multipart_upload(**at, ChecksumAlgorithm="SHA256"))["UploadId"]}
        try:
            parts = await self._send_parts(s3, source, image, upload, progress)
            await s3.complete_multipart_upload(**upload, MultipartUpload={"Parts": parts})
        except BaseException:  # parts that nobody completes are paid for ever
            await asyncio.shield(s3.abort_multipart_upload(**upload))
            raise

    async def _send_parts(
        self, s3: Any, source: Path, image: Image, upload: dict[str, str], progress: Progress
    ) -> list[dict[str, Any]]:
        parts: list[dict[str, Any]] = []
        whole = hashlib.sha256()
        with await asyncio.to_thread(source.open, "rb") as file:
            while body := await asyncio.to_thread(file.read, PART):
                whole.update(body)
                part = {"PartNumber": len(parts) + 1, "ChecksumSHA256": _base64(body)}
                answer = await s3.upload_part(**upload, **part, Body=body)
                parts.append(part | {"ETag": answer["ETag"]})
                progress(len(body))
        if whole.hexdigest() != image.checksum:
            raise _changed(source)
        return parts

    async def size(self, checksum: str) -> int | None:
        try:
            async with self._client() as s3:
                return int((await s3.head_object(**self._at(checksum)))["ContentLength"])
        except ImageError as error:
            if isinstance(error.__cause__, AwsError) and error.__cause__.code in GONE:
                return None
            raise

    async def remove(self, checksum: str) -> bool:
        there = await self.size(checksum) is not None
        async with self._client() as s3:
            await s3.delete_object(**self._at(checksum))
        return there

    async def all(self) -> list[str]:
        found: list[str] = []
        async with self._client(deadline=False) as s3:
            pages = s3.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=self._prefix)
            async for page in pages:
                names = (each["Key"].removeprefix(self._prefix) for each in page.get("Contents", ()))
                found += [name[3:] for name in names if CHECKSUM.fullmatch(name[3:]) and name[:3] == f"{name[3:5]}/"]
        return found

    async def tidy(self, before: datetime) -> None:
        async with self._client(deadline=False) as s3:
            pages = s3.get_paginator("list_multipart_uploads").paginate(Bucket=self._bucket, Prefix=self._prefix)
            async for page in pages:
                for each in page.get("Uploads", ()):
                    if each["Initiated"] < before:
                        at = {"Bucket": self._bucket, "Key": each["Key"]}
                        await s3.abort_multipart_upload(**at, UploadId=each["UploadId"])

    @asynccontextmanager
    async def read(self, checksum: str, first: int, last: int) -> AsyncIterator[AsyncIterator[bytes]]:
        """Chunks of the bytes `first` to `last`, both included. Raises: ImageError, from the chunks too."""
        async with self._client(deadline=False) as s3:
            answer = await s3.get_object(**self._at(checksum), Range=f"bytes={first}-{last}")
            async with answer["Body"] as body:
                yield body.iter_chunks(CHUNK)


def _look(source: Path) -> Image:
    digest, size = hashlib.sha256(), 0
    for chunk in read_file(source):
        digest.update(chunk)
        size += len(chunk)
    return Image(digest.hexdigest(), size)


def _base64(body: bytes) -> str:
    return b64encode(hashlib.sha256(body).digest()).decode()


def _changed(source: Path) -> ImageError:
    return ImageError(f"{source} changes while it is read")
