"""What a store of images is, and what all of them need."""

import re
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from pathlib import Path
from typing import Final, Protocol

from provisioning.model.update import Image

CHECKSUM: Final = re.compile(r"[0-9a-f]{64}")
CHUNK: Final = 1_048_576

Progress = Callable[[int], None]
"""Told of so many bytes more. May be called from another thread."""


class ImageError(Exception):
    """An image cannot be read or stored; the text is one line for people."""


class Images(Protocol):
    async def put(self, source: Path, progress: Progress) -> Image:
        """Store the content of a file; what is there already stays. `progress` hears of each byte once.

        Raises:
            ImageError: the file cannot be read or changes meanwhile, or the store takes nothing.
        """
        ...

    async def size(self, checksum: str) -> int | None:
        """Bytes of an image as it is in the store; None: it is not there. Raises: ImageError."""
        ...

    async def remove(self, checksum: str) -> bool:
        """Returns whether it was there. Raises: ImageError."""
        ...

    async def all(self) -> list[str]:
        """Checksums of all images in the store. Raises: ImageError."""
        ...

    async def tidy(self, before: datetime) -> None:
        """Take away what publishers that were killed have left half stored before this time. Raises: ImageError."""
        ...


class RemoteImages(Images, Protocol):
    def read(self, checksum: str, first: int, last: int) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """Chunks of the bytes `first` to `last`, both included. Raises: ImageError, from the chunks too."""
        ...


def checked(checksum: str) -> str:
    """The checksum. Raises: ValueError, when it is none: it is about to become a part of a path."""
    if not CHECKSUM.fullmatch(checksum):
        raise ValueError("a checksum is 64 hex digits in lower case")
    return checksum


def read_file(source: Path) -> Iterator[bytes]:
    """The content of a file in chunks. Raises: ImageError."""
    try:
        if not source.is_file():  # a pipe would never end, a device neither
            raise ImageError(f"{source} is no file" if source.exists() else f"there is no file {source}")
        with source.open("rb") as file:
            while chunk := file.read(CHUNK):
                yield chunk
    except OSError as error:
        raise ImageError(f"cannot read {source}: {error.strerror}") from error
