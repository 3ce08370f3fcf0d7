"""What `doctor` asks the machine: data directory and master key, limits, clock, listeners."""

import asyncio
import os
import stat
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

from provisioning.cli.certificates import base_address
from provisioning.cli.doctor import Finding, Findings, Level
from provisioning.settings import CONFIG_VARIABLE, DEFAULT_CONFIG, is_loopback

if TYPE_CHECKING:
    from provisioning.settings import Settings

OTHERS_WRITE: Final = stat.S_IWGRP | stat.S_IWOTH
OTHERS_READ: Final = stat.S_IRGRP | stat.S_IROTH
OLDEST_YEAR: Final = 2026
"""This release was made then."""
CONNECT_TIMEOUT: Final = 2.0
WILDCARDS: Final = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}  # noqa: S104 - compared, not bound


def source() -> str:
    """Where the settings come from."""
    if named := os.environ.get(CONFIG_VARIABLE):
        return f"readable: {named} and the environment"
    return f"readable: {DEFAULT_CONFIG if DEFAULT_CONFIG.is_file() else 'no file'} and the environment"


async def examine(settings: "Settings") -> Findings:
    yield _data_directory(settings.data_dir)
    yield _master_key(settings)
    yield _year()
    yield _open_files(settings)
    yield _address(settings)


# --- files -----------------------------------------------------------------------------------------------------------


def _data_directory(path: Path) -> Finding:
    name = "data directory"
    try:
        found = path.stat()
    except FileNotFoundError:
        return Finding(name, Level.WARNING, f"{path} is not there yet", "the first start makes it; or set data_dir")
    except OSError as error:
        return Finding(name, Level.PROBLEM, f"{path}: {error.strerror}", "let the service's user enter it")
    if not stat.S_ISDIR(found.st_mode):
        return Finding(name, Level.PROBLEM, f"{path} is not a directory", "set data_dir to one")
    if not os.access(path, os.R_OK | os.W_OK | os.X_OK):
        return Finding(name, Level.PROBLEM, f"{path} cannot be written by this user", f"chown it, or run as user "
                                                                                      f"{found.st_uid}")  # fmt: skip
    if found.st_mode & OTHERS_WRITE:
        return Finding(name, Level.PROBLEM, f"others may write {path} (mode {_mode(found.st_mode)}): the keys in it "
                                            "could be exchanged", f"chmod go-w {path}")  # fmt: skip
    return Finding(name, Level.OK, str(path))


def _mode(mode: int) -> str:
    return f"{stat.S_IMODE(mode):04o}"


def _master_key(settings: "Settings") -> Finding:
    from provisioning.store.sealing import SealError, read_key  # noqa: PLC0415 - cryptography is heavy

    name = "master key"
    if settings.master_key is not None:
        try:
            read_key(settings.master_key.get_secret_value())
        except SealError as error:
            return Finding(name, Level.PROBLEM, str(error), "correct GATEHOUSE_MASTER_KEY")
        return Finding(name, Level.OK, "from the settings")
    path = settings.data_dir / "master.key"
    try:
        found = path.stat()
        read_key(path.read_text("ascii"))
    except FileNotFoundError:
        return Finding(name, Level.WARNING, f"{path} is not there yet", "the first start makes it; a database that was "
                       "used before needs the key of that time")  # fmt: skip
    except (OSError, UnicodeDecodeError, SealError) as error:
        return Finding(name, Level.PROBLEM, f"{path}: {error}", "bring the key of this database back from its backup")
    if found.st_mode & (OTHERS_READ | OTHERS_WRITE):
        return Finding(name, Level.PROBLEM, f"others may read {path} (mode {_mode(found.st_mode)}): it opens every "
                                            "secret of the database", f"chmod 600 {path}")  # fmt: skip
    return Finding(name, Level.OK, f"{path}; keep a copy elsewhere: without it every secret is lost")


# --- clock and limits ------------------------------------------------------------------------------------------------


def _year() -> Finding:
    now = datetime.now(UTC)
    if now.year < OLDEST_YEAR:
        return Finding("clock", Level.PROBLEM, f"this machine's clock says {now:%Y-%m-%d}: every certificate is judged "
                       "by it", "set it, and keep it with NTP")  # fmt: skip
    return Finding("clock", Level.OK, f"{now:%Y-%m-%d %H:%M:%S} UTC")


def _open_files(settings: "Settings") -> Finding:
    import resource  # noqa: PLC0415 - not on every system

    name, wanted = "open files", settings.mqtt.max_connections
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < wanted:
        return Finding(name, Level.WARNING, f"the limit is {hard:,}; mqtt.max_connections is {wanted:,}",
                       f"raise it above {wanted:,}: LimitNOFILE= in systemd, --ulimit in containers")  # fmt: skip
    return Finding(name, Level.OK, "no limit" if hard == resource.RLIM_INFINITY else f"the limit is {hard:,}")


def _address(settings: "Settings") -> Finding:
    """Of what authorities publish: it stands in every certificate, for as long as that lives."""
    name = "published at"
    base = base_address(settings)
    if settings.pki.url or settings.endpoints.hurl:
        return Finding(name, Level.OK, base)
    if not base or settings.http.host in WILDCARDS:
        return Finding(name, Level.WARNING, "pki.url is not set: certificates name no address for CRL and OCSP that "
                       "anybody reaches", "set pki.url: the HTTP service as devices reach it")  # fmt: skip
    if is_loopback(settings.http.host):
        return Finding(name, Level.INFO, f"certificates name {base} for CRL and OCSP: this machine only",
                       "set pki.url before the first certificate goes out of the house")  # fmt: skip
    return Finding(name, Level.OK, base)


# --- listeners -------------------------------------------------------------------------------------------------------


async def listeners(settings: "Settings") -> Findings:
    """Does a service run here? Nothing is wrong if not."""
    yield Finding("http", Level.INFO, await _readiness(settings.http.host, settings.http.port))
    ports = {
        "mqtt": (settings.mqtt.host, settings.mqtt.port),
        "https": (settings.https.host, _port(settings.https.port, 8_443, settings.http.port)),
        "mqtts": (settings.mqtts.host, _port(settings.mqtts.port, 18_883, settings.mqtt.port)),
    }
    for name, (host, port) in ports.items():
        yield Finding(name, Level.INFO, await _accepts(host, port))


def _port(stated: int | None, usual: int, beside: int) -> int:
    """As the service has it: one that is not stated is the usual one, or any where the listener beside takes any."""
    return (usual if beside else 0) if stated is None else stated


async def _accepts(host: str, port: int) -> str:
    if not port:
        return "takes any free port: not checked"
    try:
        _, writer = await _connect(host, port)
    except (OSError, TimeoutError):
        return f"nobody listens on {host}:{port}"
    writer.close()
    return f"somebody listens on {host}:{port}"


async def _readiness(host: str, port: int) -> str:
    if not port:
        return "takes any free port: not checked"
    try:
        reader, writer = await _connect(host, port)
    except (OSError, TimeoutError):
        return f"nobody listens on {host}:{port}"
    try:
        writer.write(f"GET /readyz HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
        status = (await asyncio.wait_for(reader.readline(), CONNECT_TIMEOUT)).decode("latin-1").split()
    except (OSError, TimeoutError, ValueError):
        status = []
    finally:
        writer.close()
    match status:
        case [_, "200", *_]:
            return f"ready on {host}:{port}"
        case [_, "503", *_]:
            return f"listens on {host}:{port}, and is not ready: its log tells why"
    return f"somebody else listens on {host}:{port}"


async def _connect(host: str, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.wait_for(asyncio.open_connection(WILDCARDS.get(host, host), port), CONNECT_TIMEOUT)
