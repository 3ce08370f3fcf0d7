"""Two accounts, one of which tries everything to get at the other's things, through every operation.

What is foreign is answered as what does not exist, byte for byte, and nothing of the victim's has changed in the end.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import pytest

from provisioning.app import Running
from provisioning.protocols.ublox.call import AnyOperation, Guard
from provisioning.protocols.ublox.routes import ROUTES
from provisioning.store.database import Database
from tests.conftest import Serve
from tests.ublox import Client, Clock, client, make_account, make_devices
from tests.ublox_requests import INSTEAD, MINE, NOBODYS, REQUESTS, THEIRS, Things, provisioning
from tests.ublox_world import bootstrap, furnish

pytestmark = pytest.mark.server

NAMES: Mapping[str, Callable[[Things], Any]] = {
    **INSTEAD,
    "APIKey": lambda of: of.key,
    "CAName": lambda of: of.ca,
    "CANames": lambda of: [of.ca],
    "EncryptedHeader": lambda of: of.header,
    "FromCA": lambda of: of.ca,
    "IMEIs": lambda of: [of.imei],
    "KeyID": lambda of: of.key_id,
    "NotificationURL": lambda of: of.url,
    "Provisioning": lambda of: provisioning(of.ca),
    "RefreshToken": lambda of: of.refresh_token,
    "TagName": lambda of: of.tag,
    "ToCA": lambda of: of.other_ca,
}
"""Fields that name what belongs to somebody."""
NEUTRAL = frozenset({
    "APISecret", "Action", "AuthorizationToken", "CACertificateValidity", "Days", "DeviceCertificateValidity", "Filter",
    "FromDate", "KeyLength", "NotificationType", "Options", "PageNumber", "RegistrationCode", "RenewBeforeExpiration",
    "SyncRequired", "ToDate", "Type",
})  # fmt: skip
CREATING = ("/tag/create", "/notification/webhook/create", "/device/whitelist/add", "/ztp/rootca/create")
"""They come last: what they make is the attacker's, whatever its name."""
TOLD: Mapping[tuple[str, str], tuple[int, int]] = {
    ("/ztp/rootca/create", "body"): (409, 200),
    ("/device/whitelist/add", "ROTPublicUIDs"): (400, 200),
    ("/device/whitelist/add", "body"): (400, 200),
}
"""Where the contract itself makes a difference: names of CAs and uids are unique in the installation."""
ASIDE = frozenset({"event", "tally"})
"""Tables that are about no account, and counts."""
BUSY: Mapping[str, list[str]] = {"delivery": ["attempts", "due_at", "error"], "lane": ["due_at", "lease"]}
"""Columns that the service itself writes, whatever anybody asks."""

FOREIGN_KEYS = """
    SELECT c.conrelid::regclass::text AS here, a.attname AS name, c.confrelid::regclass::text AS there,
           b.attname AS named
    FROM pg_constraint c
    JOIN pg_attribute a ON a.attrelid = c.conrelid AND a.attnum = c.conkey[1]
    JOIN pg_attribute b ON b.attrelid = c.confrelid AND b.attnum = c.confkey[1]
    WHERE c.contype = 'f' AND cardinality(c.conkey) = 1
"""
TABLES = "SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace ORDER BY relname"

ALSO: Mapping[str, Sequence[Callable[[Things], Any]]] = {
    "/tag/remove": (
        lambda of: {"TagNames": [of.tag], "ROTPublicUIDs": ["*"]},
        lambda of: {"TagNames": [of.tag], "DeviceProfileUIDs": ["*"]},
        lambda of: {"TagNames": ["*"], "ROTPublicUIDs": [of.uid]},
        lambda of: {"TagNames": ["*"], "DeviceProfileUIDs": [of.profile]},
    ),
    "/device/whitelist/add": (
        lambda of: {"IMEIs": [of.imei], "Action": "DELETE"},
    ),
}  # fmt: skip
"""Requests about somebody's things that are like no other."""

Rows = Mapping[str, frozenset[str]]


async def dump(database: Database) -> Rows:
    """Every row of every table, as JSON."""
    async with database.snapshot() as tx:
        tables = [row["relname"] for row in await tx.db.fetch(TABLES)]
        found = {}
        for table in tables:
            if table not in ASIDE:
                query = f"SELECT (to_jsonb(t) - $1::text[])::text FROM {table} t"
                found[table] = frozenset([row[0] for row in await tx.db.fetch(query, BUSY.get(table, []))])
        return found


async def intruders(database: Database, before: Rows, after: Rows) -> list[str]:
    """Rows that have come since and refer to rows of before."""
    async with database.read() as tx:
        keys = [tuple(row) for row in await tx.db.fetch(FOREIGN_KEYS)]
    found = []
    for here, name, there, named in keys:
        if here in ASIDE or there in ASIDE or there == "authority":
            continue
        ids = {json.loads(row)[named] for row in before[there]}
        found += [f"{here}: {row}" for row in after[here] - before[here] if json.loads(row)[name] in ids]
    return found


def attacks(row: AnyOperation, mine: Things, theirs: Things, nobodys: Things) -> Iterator[tuple[str, Any, Any]]:
    """What is changed; a request about the victim's things; the same about things that nobody has."""
    if row.guard is not Guard.OPEN:
        yield "body", REQUESTS[row.path](theirs), REQUESTS[row.path](nobodys)
    for write in ALSO.get(row.path, ()):
        yield "also", write(theirs), write(nobodys)
    good = REQUESTS[row.path](mine)
    for field in row.reader.model_fields.values():
        name = str(field.alias)
        if name not in NAMES:
            assert name in NEUTRAL, f"{row.path}: may {name} name what belongs to somebody?"
            continue
        rule = next((rule for rule in (*row.reader.ONE_OF, *row.reader.AT_MOST_ONE_OF) if name in rule), ())
        rest = {other: value for other, value in good.items() if other not in rule}
        if not field.is_required():
            all_of_them = {other: value for other, value in rest.items() if other != name}
            yield f"no {name}", all_of_them, all_of_them
        own, foreign, unknown = (NAMES[name](of) for of in (mine, theirs, nobodys))
        yield name, rest | {name: foreign}, rest | {name: unknown}
        if isinstance(own, list):
            yield name, rest | {name: own + foreign}, rest | {name: own + unknown}
            yield name, rest | {name: foreign + own}, rest | {name: unknown + own}


def traces(of: Things) -> set[str]:
    """By what a reply would give things away."""
    uids = {of.uid, of.fresh, of.uid.lstrip("0"), of.fresh.lstrip("0")}
    names = {of.profile, of.profile_name, of.tag, of.ca, of.other_ca, of.url, of.imei, of.device_serial, of.serial}
    return uids | names


async def post(api: Client, path: str, body: Any) -> tuple[int, bytes]:
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {api.token}"}
    async with api.http.post(f"{api.url}/v1{path}", data=json.dumps(body), headers=headers) as response:
        return response.status, await response.read()


async def view(api: Client, of: Things) -> dict[str, Any]:
    """All that an account sees of itself, without changing anything: the lists of the replies, or what they are."""
    found = {}
    for row in ROUTES:
        if row.path.endswith("/get") and not row.path.startswith("/e2e/"):
            found[row.path] = await api.ok(row.path, REQUESTS[row.path](of))
    for path in ("/deviceprofile/get", "/ztp/rootca/get", "/ztp/rootca/crl/get"):
        found[f"{path}, all"] = await api.ok(path, {})
    found["/device/usage/get, all"] = await api.ok("/device/usage/get", {"FromDate": of.day(30)})
    return {path: _content(reply) for path, reply in found.items()}


def _content(reply: Any) -> Any:
    """Without what lists without entries have too."""
    if isinstance(reply, dict) and reply.get("TotalRecords") == 0:
        return None
    return reply


def test_every_operation_is_attacked() -> None:
    assert set(REQUESTS) == {row.path for row in ROUTES}
    fields = {str(field.alias) for row in ROUTES for field in row.reader.model_fields.values()}
    assert fields == NAMES.keys() | NEUTRAL
    assert not NAMES.keys() & NEUTRAL


@pytest.mark.parametrize("first", ["victim", "attacker"])
async def test_nobody_gets_at_anothers_things(serve: Serve, first: str) -> None:
    running = await serve(ublox={"rate": 0, "webhook_private": True})
    clock = Clock()
    clock.set_on(running)
    async with client(running) as attacker, client(running) as victim:
        if first == "attacker":
            mine = await furnish(running, attacker, MINE)
        before = await dump(running.database)
        theirs = await furnish(running, victim, THEIRS)
        clock.move(minutes=6)  # what was used can be seen by now
        seen = await view(victim, theirs)
        assert all(seen.values()), f"there is nothing to get at: {[path for path, found in seen.items() if not found]}"
        furnished = await dump(running.database)
        victims = {table: furnished[table] - before[table] for table in furnished}
        if first == "victim":
            mine = await furnish(running, attacker, MINE)
        last = [row for path in CREATING for row in ROUTES if row.path == path]
        problems = []
        for row in (*(row for row in ROUTES if row.path not in CREATING), *last):
            for what, foreign, unknown in attacks(row, mine, theirs, NOBODYS):
                answers = [await post(attacker, row.path, body) for body in (foreign, unknown)]
                statuses = answers[0][0], answers[1][0]
                if expected := TOLD.get((row.path, what)):
                    if statuses != expected:
                        problems.append(f"{row.path}, {what}: {answers}, expected {expected}")
                elif answers[0] != answers[1]:
                    problems.append(f"{row.path}, {what}: {answers[0]} for a foreign one, {answers[1]} for none")
                text = answers[0][1].decode()
                given_away = [trace for trace in traces(theirs) if trace in text]
                if given_away:
                    problems.append(f"{row.path}, {what}: gives away {given_away}: {text:.200}")
        assert not problems, "\n".join(problems)
        after = await dump(running.database)
        for table, rows in victims.items():
            assert rows <= after[table], (
                f"{table}: rows of the victim's have changed: {sorted(rows - after[table])[:3]}"
            )
        assert not await intruders(running.database, victims, after)
        assert await view(victim, theirs) == seen


async def test_anothers_whitelist_lets_nobody_in(running: Running) -> None:
    async with client(running) as attacker, client(running) as victim:
        await make_account(running.database, MINE.key, MINE.secret)
        await attacker.authenticate(MINE.key, MINE.secret)
        account = await make_account(running.database, THEIRS.key, THEIRS.secret)
        await victim.authenticate(THEIRS.key, THEIRS.secret)
        await make_devices(running.database, account, [THEIRS.uid])
        await attacker.ok("/device/whitelist/add", {"IMEIs": [THEIRS.imei]})
        await bootstrap(running, victim, THEIRS.uid, IMEI=THEIRS.imei)
        info = await victim.ok("/device/info/get", {"ROTPublicUIDs": [THEIRS.uid], "Options": ["CORE"]})
    rot = info["DeviceInfo"][0]["ROT"]
    assert (rot["State"], rot["IsBlacklisted"]) == ("ALLOCATED", True)
