"""What the tests of all stores need: a file, a bucket, somebody who counts."""

import asyncio
import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.aws import Account

CONTENT = b"firmware-1.4.0"
CHECKSUM = hashlib.sha256(CONTENT).hexdigest()


class Bytes:
    """Counts what is told of progress."""

    def __init__(self) -> None:
        self.told: list[int] = []

    def __call__(self, count: int) -> None:
        self.told.append(count)


@pytest.fixture
async def bucket(aws: "Account") -> "Account":
    await asyncio.to_thread(aws.make_bucket, "fleet")
    return aws


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "image.bin"
    path.write_bytes(CONTENT)
    return path
