"""What `doctor` asks the database, without changing it: is it there, is it ours, does it tell of changes?"""

from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

import asyncpg

from provisioning.cli.doctor import Finding, Findings, Level
from provisioning.demo import removal
from provisioning.store import diagnosis, products
from provisioning.store.database import AWAY, Database, open_database
from provisioning.store.embedded import EmbeddedError, embedded_postgres
from provisioning.store.sealing import Sealer, SealError, read_key

if TYPE_CHECKING:
    from provisioning.settings import Settings

NOTIFY_TIMEOUT: Final = 5.0
NOTICEABLE: Final = timedelta(seconds=5)
SERIOUS: Final = timedelta(minutes=5)
"""As far as certificates are dated back."""
CHECK: Final = "database"


@dataclass(frozen=True, slots=True)
class Opened:
    """A database that has all that this release expects, and the master key that opens it."""

    database: Database


async def examine(settings: "Settings", stack: AsyncExitStack, opened: list[Opened]) -> Findings:
    """`opened` gets the database, if it can be worked with; it is closed with `stack`."""
    url = ""
    if settings.database.url is not None:
        url = settings.database.url.get_secret_value()
    elif (settings.data_dir / "postgres").is_dir():
        try:
            url = await stack.enter_async_context(embedded_postgres(settings.data_dir))
        except (EmbeddedError, OSError) as error:
            yield Finding(CHECK, Level.PROBLEM, str(error), "see that log; is the disk full?")
            return
    else:
        yield Finding(CHECK, Level.WARNING, "there is none yet", "the first start makes one; or set database.url")
        return
    sealer = _sealer(settings)
    try:
        async with diagnosis.connected(url, settings.database.timeout) as connection:
            before = datetime.now(UTC)
            server = await diagnosis.server(connection, sealer)
            after = datetime.now(UTC)
            for each in _of_server(server):
                yield each
            yield _clock(server.clock, before, after)
            yield await _listen(url, connection, settings.database.timeout)
    except ValueError:  # its text may hold a part of the password
        yield Finding(CHECK, Level.PROBLEM, "its URL is not of the form postgresql://user:password@host/name",
                      "correct GATEHOUSE_DATABASE__URL; percent-encode / # ? @ in a password")  # fmt: skip
        return
    except (*AWAY, asyncpg.PostgresError) as error:
        yield Finding(CHECK, Level.PROBLEM, f"it cannot be used: {type(error).__name__}: {error}"[:200],
                      "start it, or correct GATEHOUSE_DATABASE__URL")  # fmt: skip
        return
    if server.pending or server.unknown or sealer is None or server.key_fits is False:
        return
    database = await stack.enter_async_context(
        open_database(url, sealer, pool_min=1, pool_max=2, timeout=settings.database.timeout)
    )
    opened.append(Opened(database))
    async with database.read() as tx:
        yield _newest(await diagnosis.newest(tx))
        if demo := await products.demo_keys(tx):
            loaded = ", ".join(key for _, key in demo)
            said = f"product {loaded} is loaded: its" if len(demo) == 1 else f"products {loaded} are loaded: their"
            yield Finding("demo fleet", Level.WARNING, f"{said} secrets are public", removal(demo))


def _sealer(settings: "Settings") -> Sealer | None:
    """None: there is no key, or none that can be read; `doctor_machine` tells."""
    try:
        if settings.master_key is not None:
            return Sealer(read_key(settings.master_key.get_secret_value()))
        return Sealer(read_key((settings.data_dir / "master.key").read_text("ascii")))
    except (OSError, UnicodeDecodeError, SealError):
        return None


def _of_server(server: diagnosis.Server) -> list[Finding]:
    found = [Finding(CHECK, Level.OK, f"PostgreSQL {server.version}")]
    if server.is_standby:
        found[0] = Finding(CHECK, Level.PROBLEM, f"PostgreSQL {server.version} is a standby: nothing can be written",
                           "point GATEHOUSE_DATABASE__URL at the primary")  # fmt: skip
    name = "migrations"
    if server.unknown:
        found.append(Finding(name, Level.PROBLEM, f"it has {max(server.unknown):04}, which this release does not know",
                             "upgrade this installation"))  # fmt: skip
    elif server.changed:
        found.append(Finding(name, Level.PROBLEM, f"{server.changed[0]:04} was applied with another text",
                             "install the release that the database belongs to"))  # fmt: skip
    elif server.pending:
        found.append(Finding(name, Level.WARNING, f"not applied yet: {', '.join(server.pending)}",
                             "gatehouse migrate, or the next start"))  # fmt: skip
    else:
        found.append(Finding(name, Level.OK, "all applied"))
    if server.key_fits is False:
        found.append(Finding("master key", Level.PROBLEM, "this database was sealed under another master key",
                             "bring back the key of this database, or set GATEHOUSE_MASTER_KEY"))  # fmt: skip
    elif server.key_fits:
        found.append(Finding("master key", Level.OK, "opens this database"))
    return found


def _clock(clock: datetime, before: datetime, after: datetime) -> Finding:
    name = "database clock"
    off = max(before - clock, clock - after, timedelta())
    if off < NOTICEABLE:
        return Finding(name, Level.OK, "agrees with this machine's")
    level = Level.PROBLEM if off >= SERIOUS else Level.WARNING
    side = "behind" if clock < before else "ahead of"
    return Finding(name, level, f"{off.total_seconds():,.0f} s {side} this machine's: {clock:%Y-%m-%d %H:%M:%S} UTC",
                   "keep both with NTP")  # fmt: skip


async def _listen(url: str, speaker: "asyncpg.Connection[asyncpg.Record]", seconds: float) -> Finding:
    async with diagnosis.connected(url, seconds) as listener:
        if await diagnosis.hears(listener, speaker, NOTIFY_TIMEOUT):
            return Finding("notifications", Level.OK, "LISTEN and NOTIFY work")
    return Finding("notifications", Level.PROBLEM, "nothing is heard of what is notified: revocations come late",
                   "connect to PostgreSQL itself, not through a pooler in transaction mode")  # fmt: skip


def _newest(newest: datetime | None) -> Finding:
    name, now = "clock", datetime.now(UTC)
    if newest is not None and newest > now:
        return Finding(name, Level.PROBLEM, f"this machine's clock says {now:%Y-%m-%d %H:%M:%S} UTC, and the newest "
                       f"certificate begins at {newest:%Y-%m-%d %H:%M:%S}", "set it, and keep it with NTP")  # fmt: skip
    return Finding(
        name, Level.OK, "is past the beginning of the newest certificate" if newest else "no certificates yet"
    )
