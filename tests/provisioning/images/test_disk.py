import asyncio
import os
from datetime import UTC, datetime
from pathlib import Path

import pytest

from provisioning.images import DiskImages, ImageError, disk
from provisioning.model.update import Image
from tests.provisioning.images.conftest import CHECKSUM, Bytes


async def test_nothing_is_left_half_written(tmp_path: Path, file: Path) -> None:
    images = DiskImages(tmp_path / "images")

    def stop(_count: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        images._put(file, stop)
    assert list((tmp_path / "images").rglob("*")) == []
    await images.put(file, Bytes())
    assert [path.name for path in (tmp_path / "images").rglob("*") if path.is_file()] == [CHECKSUM]


async def test_a_disk_that_keeps_something_else_is_found_out(
    tmp_path: Path, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disk, "hash_of", lambda _file: Image("0" * 64, 14))
    with pytest.raises(ImageError, match="does not keep what is written to it"):
        await DiskImages(tmp_path / "images").put(file, Bytes())
    assert list((tmp_path / "images").rglob("*")) == []


async def test_a_place_that_is_no_directory_is_told(tmp_path: Path, file: Path) -> None:
    (tmp_path / "images").write_text("")
    images = DiskImages(tmp_path / "images")
    with pytest.raises(ImageError, match=r"^cannot use .*/images.*: "):
        await images.put(file, Bytes())
    assert await images.size(CHECKSUM) is None


async def test_what_a_killed_publisher_left_is_swept_away(tmp_path: Path, file: Path) -> None:
    images = DiskImages(tmp_path)
    await images.put(file, Bytes())
    old, new = tmp_path / ".new-old", tmp_path / ".new-new"
    for path in (old, new):
        await asyncio.to_thread(path.write_text, "")
    os.utime(old, (1_000, 1_000))
    await images.tidy(datetime.fromtimestamp(2_000, UTC))
    assert not old.exists()
    assert new.exists()
    assert await images.size(CHECKSUM)
