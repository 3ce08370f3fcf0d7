"""Files that commands read and write. What goes wrong with one is one line; nothing is left half written."""

import contextlib
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, Final

from provisioning.cli.run import Failure

STANDARD: Final = "-"
LARGEST: Final = 1_048_576
"""Bytes of a file that is read as a whole."""
PRIVATE: Final = 0o600
PUBLIC: Final = 0o644


def read(name: str) -> bytes:
    """The whole of a small file; `-` is stdin. Raises: Failure."""
    try:
        if name == STANDARD:
            data = sys.stdin.buffer.read(LARGEST + 1)
        else:
            with Path(name).open("rb") as file:
                data = file.read(LARGEST + 1)
    except OSError as error:
        raise Failure(f"cannot read {name}: {error.strerror}") from error
    if len(data) > LARGEST:
        raise Failure(f"{name} has more than {LARGEST} bytes")
    return data


def read_password(name: str) -> bytes:
    """The first line of a file. Raises: Failure."""
    if password := read(name).partition(b"\n")[0].rstrip(b"\r"):
        return password
    raise Failure(f"{name} has no password in its first line")


@contextlib.contextmanager
def new(name: str, mode: int) -> Iterator[Callable[[str], None]]:
    """What fills a file that was not there before, durably. The file is gone again if the block raises.

    Raises:
        Failure: there is a file of this name, or it cannot be written.
    """
    path = Path(name)
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    except FileExistsError:
        raise Failure(f"there is a file {name} already; it stays as it is") from None
    except OSError as error:
        raise Failure(f"cannot write {name}: {error.strerror}") from error
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:

            def write(text: str) -> None:
                with _writing(name):
                    file.write(text)
                    _sync(file)

            yield write
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def _sync(file: IO[str]) -> None:
    file.flush()
    os.fsync(file.fileno())


@contextlib.contextmanager
def target(name: str, mode: int = PRIVATE) -> Iterator[IO[str]]:
    """A file that takes its name when it is complete; a device or pipe is written as it is; `-` is stdout.

    Raises:
        Failure: it cannot be written.
    """
    if name == STANDARD:
        yield sys.stdout
        return
    path = Path(name).resolve()
    if path.exists() and not path.is_file():
        with _writing(name), path.open("w", encoding="utf-8") as file:
            yield file
        return
    with _writing(name):
        # Mode 0600 from its first byte on.
        temporary: Any = tempfile.NamedTemporaryFile(  # noqa: SIM115 - closed below
            "w", encoding="utf-8", dir=path.parent, prefix=f".{path.name}.", delete=False
        )
    try:
        with temporary:
            yield temporary
            with _writing(name):
                os.fchmod(temporary.fileno(), mode)
                _sync(temporary)
        with _writing(name):
            Path(temporary.name).replace(path)
    except BaseException:
        Path(temporary.name).unlink(missing_ok=True)
        raise


def write(name: str, text: str, mode: int = PRIVATE) -> None:
    """A whole file at once, as `target`. Raises: Failure."""
    with target(name, mode) as out:
        write_to(out, name, text)


def write_to(file: IO[str], name: str, text: str) -> None:
    """Write on. Raises: Failure."""
    with _writing(name):
        file.write(text)


@contextlib.contextmanager
def _writing(name: str) -> Iterator[None]:
    """Raises: Failure, for what the file system says."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise Failure(f"cannot write {name}: {error.strerror}") from error
