import io
import os
import stat
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from provisioning.cli import files
from provisioning.cli.run import Failure


def fails(write: Callable[[str], object]) -> None:
    write("half")
    raise ZeroDivisionError


def test_a_new_file_is_its_owner_s_alone(tmp_path: Path) -> None:
    path = tmp_path / "f"
    with files.new(str(path), files.PRIVATE) as write:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, "from its first byte on"
        write("one\n")
        assert path.read_text() == "one\n"
        write("two\n")
    assert path.read_text() == "one\ntwo\n"


def test_a_new_file_goes_with_what_fails(tmp_path: Path) -> None:
    path = tmp_path / "f"
    with pytest.raises(ZeroDivisionError), files.new(str(path), files.PRIVATE) as write:
        fails(write)
    assert not path.exists()


@pytest.mark.parametrize("kind", ["file", "directory", "link to nowhere"])
def test_what_is_there_stays(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "f"
    match kind:
        case "file":
            path.write_text("precious")
        case "directory":
            path.mkdir()
        case _:
            path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(Failure, match="there is a file"), files.new(str(path), files.PRIVATE):
        pytest.fail("it was opened")
    assert path.is_symlink() or path.exists()
    assert not (tmp_path / "elsewhere").exists()


def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    path = tmp_path / "f"
    with pytest.raises(Failure, match=f"cannot write {path}: No space left on device"):  # noqa: SIM117 - in this order
        with files.new(str(path), files.PRIVATE) as write:
            write("x")
    with pytest.raises(Failure, match=f"cannot write {path}: No space left on device"):
        files.write(str(path), "x")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("mode", [files.PRIVATE, files.PUBLIC])
def test_a_target_takes_the_place_of_what_was_there(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "f"
    path.write_text("old")
    with files.target(str(path), mode) as out:
        out.write("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert stat.S_IMODE(path.stat().st_mode) == mode


def test_a_target_that_fails_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_text("old")
    with pytest.raises(ZeroDivisionError), files.target(str(path)) as out:
        fails(out.write)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_reading(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"\x00\xff")
    assert files.read(str(path)) == b"\x00\xff"
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"piped")))
    assert files.read("-") == b"piped"
    with pytest.raises(Failure, match="cannot read /nowhere/file: No such file"):
        files.read("/nowhere/file")
    with pytest.raises(Failure, match="/dev/zero has more than 1048576 bytes"):
        files.read("/dev/zero")


@pytest.mark.parametrize("content", [b"pass word", b"pass word\n", b"pass word\r\nmore\n"])
def test_a_password_is_the_first_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "f"
    path.write_bytes(content)
    assert files.read_password(str(path)) == b"pass word"
