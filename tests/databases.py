"""Databases for tests: each finds one as if it were new.

Making a database costs five times what emptying one does. So they are emptied and used again, unless a test has left
anything but rows in its own: another schema, another setting, what the migrations wrote changed.
"""

import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg

from provisioning.store.migrate import migrate
from provisioning.store.sealing import Sealer

TEMPLATE = "gatehouse_template"
EMPTY = """
    DO $$
    DECLARE
        each record;
    BEGIN
        SET LOCAL session_replication_role = replica;  -- neither triggers nor foreign keys
        FOR each IN SELECT oid::regclass AS name, pg_relation_size(oid) AS size FROM pg_class
                    WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace
                          AND relname NOT IN ('meta', 'migration')  -- the migrations fill them
        LOOP
            IF each.size > 1000000 THEN
                EXECUTE 'TRUNCATE ' || each.name || ' CASCADE';
            ELSIF each.size > 0 THEN
                EXECUTE 'DELETE FROM ' || each.name;
            END IF;
        END LOOP;
        PERFORM setval(oid, 1, false) FROM pg_class WHERE relkind = 'S' AND relnamespace = 'public'::regnamespace;
    END $$
"""
OTHERS = "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = $1 AND pid <> pg_backend_pid()"
LOOKS = """
    SELECT md5(string_agg(part, E'\\n' ORDER BY part)) FROM (
        SELECT concat_ws('|', 'class', c.relname, c.relkind, c.relpersistence, c.relacl) AS part FROM pg_class c
        WHERE c.relnamespace = 'public'::regnamespace
        UNION ALL SELECT concat_ws('|', 'column', attrelid::regclass, attname, atttypid::regtype, attnotnull)
        FROM pg_attribute JOIN pg_class c ON c.oid = attrelid
        WHERE c.relnamespace = 'public'::regnamespace AND attnum > 0
        UNION ALL SELECT concat_ws('|', 'trigger', tgrelid::regclass, tgname, tgenabled) FROM pg_trigger
        WHERE NOT tgisinternal
        UNION ALL SELECT concat_ws('|', 'function', proname, prosrc) FROM pg_proc
        WHERE pronamespace = 'public'::regnamespace
        UNION ALL SELECT concat_ws('|', 'constraint', conname, pg_get_constraintdef(oid)) FROM pg_constraint
        WHERE connamespace = 'public'::regnamespace
        UNION ALL SELECT concat_ws('|', 'schema', nspname, nspacl) FROM pg_namespace WHERE nspname !~ '^pg_'
        UNION ALL SELECT concat_ws('|', 'setting', setconfig) FROM pg_db_role_setting
        WHERE setdatabase = (SELECT oid FROM pg_database WHERE datname = current_database())
        UNION ALL SELECT concat_ws('|', 'migration', m::text) FROM migration m
        UNION ALL SELECT concat_ws('|', 'meta', m::text) FROM meta m
    ) parts
"""


_numbers = itertools.count(1)


def url_of(server: str, name: str) -> str:
    return server.replace("/postgres?", f"/{name}?")


async def _run(server: str, statement: str) -> None:
    connection = await asyncpg.connect(server)
    await connection.execute(statement)
    await connection.close()


async def _make(server: str, template: str) -> str:
    name = f"test_{next(_numbers)}"
    # Files are copied: the way by the log costs three times as much.
    await _run(server, f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY FILE_COPY")
    return name


@asynccontextmanager
async def fresh_database(server: str, template: str) -> AsyncIterator[str]:
    """URL of a new database, dropped at the end."""
    name = await _make(server, template)
    try:
        yield url_of(server, name)
    finally:
        await _run(server, f"DROP DATABASE {name} WITH (FORCE)")


class Databases:
    """The migrated databases of one server. `make_template` must come first."""

    def __init__(self, server: str) -> None:
        self._server = server
        self._looks = ""
        self._clean: list[str] = []

    async def make_template(self, sealer: Sealer) -> None:
        await _run(self._server, f"CREATE DATABASE {TEMPLATE}")
        url = url_of(self._server, TEMPLATE)
        await migrate(url, sealer)
        connection = await asyncpg.connect(url)
        self._looks = await connection.fetchval(LOOKS)
        await connection.close()

    async def _empty(self, name: str) -> bool:
        """Empty a database; False: it is not as it was."""
        try:
            connection = await asyncpg.connect(url_of(self._server, name))
        except asyncpg.PostgresError:  # it takes no connections any more, say
            return False
        try:
            await connection.execute(OTHERS, name)
            if await connection.fetchval(LOOKS) != self._looks:
                return False
            await connection.execute(EMPTY)
        finally:
            await connection.close()
        return True

    @asynccontextmanager
    async def migrated(self) -> AsyncIterator[str]:
        """URL of a database with the schema of this release, and nothing in it."""
        name = self._clean.pop() if self._clean else await _make(self._server, TEMPLATE)
        try:
            yield url_of(self._server, name)
        finally:
            if await self._empty(name):
                self._clean.append(name)
            else:
                await _run(self._server, f"DROP DATABASE {name} WITH (FORCE)")
