"""Opening the registry: master key, database, migrations. The command line needs no more; the service begins so."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

import asyncpg

from provisioning.model.events import Event
from provisioning.model.refusal import Refusal
from provisioning.settings import Settings
from provisioning.store.database import AWAY, Database, open_database
from provisioning.store.embedded import EmbeddedError, embedded_postgres
from provisioning.store.migrate import Migration, MigrationError, is_sealed, migrate
from provisioning.store.sealing import Sealer, SealError, key_file, read_key


class StartError(Exception):
    """Gatehouse cannot start; the text is one line that says what is wrong, where, and what to do."""


async def sealer_of(settings: Settings, url: str) -> Sealer:
    """The sealer of the database at `url`. A key is made for a database that has never been sealed, and only for one.

    Raises:
        StartError: there is no key, or it is none.
        OSError, asyncpg.PostgresError: the database cannot be reached.
    """
    try:
        if settings.master_key is not None:
            return Sealer(read_key(settings.master_key.get_secret_value()))
        path = settings.data_dir / "master.key"
        if not path.exists() and await is_sealed(url):
            raise StartError(
                f"master key: there is no {path}, and the secrets of this database were sealed with one: "
                "put it back, or name it by GATEHOUSE_MASTER_KEY or GATEHOUSE_MASTER_KEY_FILE"
            )
        return Sealer(key_file(path))
    except SealError as error:
        raise StartError(f"master key: {error}") from error


@asynccontextmanager
async def migrated(settings: Settings) -> AsyncIterator[tuple[str, Sealer, list[Migration]]]:
    """URL and sealer of the settings' database, and what was applied to it now. An embedded one runs with the block.

    Raises:
        StartError: it cannot be reached, migrated, or opened with this master key.
    """
    async with AsyncExitStack() as stack:
        if settings.database.url is not None:
            url = settings.database.url.get_secret_value()
        else:
            try:
                url = await stack.enter_async_context(embedded_postgres(settings.data_dir))
            except (EmbeddedError, OSError) as error:
                raise StartError(str(error)) from error
        try:
            sealer = await sealer_of(settings, url)
            applied = await migrate(url, sealer)
        except MigrationError as error:
            raise StartError(f"database: {error}") from error
        except (*AWAY, asyncpg.PostgresError, ValueError) as error:
            raise StartError(f"database: cannot be used: {error}; check GATEHOUSE_DATABASE__URL") from error
        yield url, sealer, applied


@asynccontextmanager
async def registry(
    settings: Settings, *, on_commit: Callable[[Sequence[Event]], None] | None = None
) -> AsyncIterator[Database]:
    """The migrated database of the settings: the one at `database.url`, or the embedded one of the data directory.

    Raises:
        StartError: as `migrated`.
    """
    async with AsyncExitStack() as stack:
        url, sealer, _ = await stack.enter_async_context(migrated(settings))
        opened = open_database(
            url, sealer, pool_min=settings.database.pool_min, pool_max=settings.database.pool_max,
            timeout=settings.database.timeout, on_commit=on_commit,
        )  # fmt: skip
        try:
            database = await stack.enter_async_context(opened)
        except Refusal as refusal:
            raise StartError(f"database: {refusal.detail.get('error')}; check GATEHOUSE_DATABASE__URL") from refusal
        yield database
