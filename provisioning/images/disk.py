"""Images on disk: `<data_dir>/images/41/41bb2091…07fe7f`.

A file takes its name only when it is complete, durable and verified, so that a name never stands for something else.
"""

import asyncio
import hashlib
import os
import tempfile
from contextlib import suppress
from datetime import datetime
from io import BufferedReader
from pathlib import Path
from typing import BinaryIO, Final

from provisioning.images.store import CHECKSUM, ImageError, Progress, checked, read_file
from provisioning.model.update import Image

NEW: Final = ".new-"
"""How the name of a file begins that is not complete yet."""


class DiskImages:
    def __init__(self, root: Path) -> None:
        self._root = root

    def path(self, checksum: str) -> Path:
        """Where the image is, if it is there. Raises: ValueError, when this is no checksum."""
        return self._root / checked(checksum)[:2] / checksum

    async def put(self, source: Path, progress: Progress) -> Image:
        return await asyncio.to_thread(self._put, source, progress)

    async def size(self, checksum: str) -> int | None:
        try:
            return await asyncio.to_thread(lambda: self.path(checksum).stat().st_size)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise _disk_error(error) from error

    async def remove(self, checksum: str) -> bool:
        try:
            await asyncio.to_thread(self.path(checksum).unlink)
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError as error:
            raise _disk_error(error) from error
        return True

    async def all(self) -> list[str]:
        return await asyncio.to_thread(
            lambda: sorted(path.name for path in self._root.glob("[0-9a-f][0-9a-f]/*") if CHECKSUM.fullmatch(path.name))
        )

    async def tidy(self, before: datetime) -> None:
        await asyncio.to_thread(self._tidy, before.timestamp())

    def _tidy(self, before: float) -> None:
        for path in self._root.glob(f"{NEW}*"):
            with suppress(FileNotFoundError):
                if path.stat().st_mtime < before:
                    path.unlink()

    def _put(self, source: Path, progress: Progress) -> Image:
        try:
            self._root.mkdir(parents=True, exist_ok=True)
            descriptor, name = tempfile.mkstemp(dir=self._root, prefix=NEW)
        except OSError as error:
            raise _disk_error(error) from error
        new = Path(name)
        try:
            with os.fdopen(descriptor, "wb") as out:
                image = self._copy(source, out, progress)
            with new.open("rb") as written:
                if hash_of(written) != image:
                    raise ImageError(f"{self._root} does not keep what is written to it")
            self._name(new, image)
        except OSError as error:
            raise _disk_error(error) from error
        finally:
            new.unlink(missing_ok=True)
        return image

    def _copy(self, source: Path, out: BinaryIO, progress: Progress) -> Image:
        digest, size = hashlib.sha256(), 0
        for chunk in read_file(source):
            out.write(chunk)
            digest.update(chunk)
            size += len(chunk)
            progress(len(chunk))
        out.flush()
        os.fchmod(out.fileno(), 0o644)  # the service may be another user than whoever publishes
        os.fsync(out.fileno())
        return Image(digest.hexdigest(), size)

    def _name(self, new: Path, image: Image) -> None:
        """An image that is there already is replaced by the same: a damaged one is whole again."""
        path = self.path(image.checksum)
        path.parent.mkdir(exist_ok=True)
        new.replace(path)
        for directory in (path.parent, self._root):
            descriptor = os.open(directory, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)


def hash_of(file: BufferedReader) -> Image:
    digest = hashlib.file_digest(file, "sha256")
    return Image(digest.hexdigest(), file.tell())


def _disk_error(error: OSError) -> ImageError:
    return ImageError(f"cannot use {error.filename}: {error.strerror}")
