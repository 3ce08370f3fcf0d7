"""Measure the lists of accounts: pages for one with a thousand modules beside pages for one with a million.

usage: accounts.py [--small N] [--large N] [--times N] [--json]

Both accounts live in one database, filled by SQL, and everything else about them is alike: device profiles, tags, what
their first devices have told. A service of its own answers; one client asks it for the first page, one in the middle
and the last one, of each account by turns, over a connection that stays open. Times are from the request to the end of
the answer, in the median.

    ratio   milliseconds for the large account / for the small one; at most 3 is the aim

Rate limits are off.
"""

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, NamedTuple

import aiohttp
import asyncpg

sys.path.insert(0, str(Path(__file__).resolve().parent))
from run import GATEHOUSE, ROOT, service

from provisioning.protocols.ublox.wire import PAGE_SIZE, UNATTRIBUTED
from provisioning.store.embedded import embedded_postgres
from provisioning.store.lists import COMPACT

SECRET: Final = "bench-secret-of-both-accounts-00"  # noqa: S105 - of a database that is thrown away
PROFILES: Final = 20
TAGS: Final = 100
ASKED: Final = 100
"""Devices that an operation about some of them names."""
AT_ONCE: Final = 50_000
AIM: Final = 3.0

# $1 account, $2 number of its first module, $3 of its last, $4 profiles, $5 authority, $6 root CA, $7 prefix, $8 now
MODULES: Final = """
    WITH d AS (
        INSERT INTO device (protocol, product_id, key, secret, state, activated_at)
        SELECT 'ublox', $1, $7 || lpad(to_hex(n), 12, '0'), '', 'activated', $8
        FROM generate_series($2::bigint, $3::bigint) n RETURNING id, key, ('x' || right(key, 12))::bit(48)::bigint AS n
    ), c AS (
        INSERT INTO certificate (authority_id, serial, fingerprint, der, device_id, profile, cn, not_before, not_after)
        SELECT $5, 'f' || key, sha256(key::bytea), key::bytea, id, 'device', key, $8, $8 + interval '1 year' FROM d
        RETURNING id, device_id
    )
    INSERT INTO module (device_id, account_id, uid, profile_id, sealed_at, whitelisted, blacklisted, bootstrapped_at,
                        imei, device_serial, last_seen, due_at, desired, current, certificate_id, issuer_id)
    SELECT d.id, $1, key, ($4::bigint[])[n % 21 + 1], $8, n % 2 = 0, n % 10 = 1, $8, lpad(n::text, 15, '0'),
           n::text, $8, $8 + interval '28 days', '{"LocalDPR": ["ENABLED", "2026-01-01T00:00:00+00:00"]}',
           '{"LocalDPR": ["ENABLED", "2026-01-01T00:00:00+00:00"]}', c.id, $6
    FROM d JOIN c ON c.device_id = d.id ORDER BY d.id
"""
# What the first devices have told in both accounts, and the others in the large one. $1 account, $2 now
TOLD: Final = (
    """INSERT INTO whitelist (account_id, kind, value, created_at)
       SELECT $1, 'uid', uid, $2 FROM module WHERE account_id = $1 ORDER BY device_id""",
    """INSERT INTO tag_module (tag_id, device_id)
       SELECT t.id, m.device_id FROM module m JOIN tag t ON t.account_id = m.account_id
              AND (t.name = 'tag-0' OR t.name = 'tag-' || (1 + m.device_id % 99)) WHERE m.account_id = $1""",
    """INSERT INTO notification (device_id, kind, at, payload)
       SELECT device_id, 'DEVICE_PROPERTIES_CHANGE', $2::timestamptz - n * interval '1 hour', '{}'
       FROM (SELECT device_id, row_number() OVER (ORDER BY device_id) <= 100 AS first FROM module
             WHERE account_id = $1) m CROSS JOIN generate_series(1, 30) n WHERE first OR n = 1""",
    """INSERT INTO activity (device_id, at, command, result)
       SELECT device_id, $2::timestamptz - n * interval '1 hour', 'HEARTBEAT', 'OK'
       FROM (SELECT device_id, row_number() OVER (ORDER BY device_id) = 1 AS first FROM module
             WHERE account_id = $1) m CROSS JOIN generate_series(1, 1000) n WHERE first OR n = 1""",
    """INSERT INTO clone_event (account_id, device_id, at, reason, source)
       SELECT $1, device_id, $2::timestamptz - n * interval '1 hour', 'COUNTER_REGRESSION', '203.0.113.9'
       FROM (SELECT device_id, row_number() OVER (ORDER BY device_id) <= 100 AS first FROM module
             WHERE account_id = $1) m CROSS JOIN generate_series(1, 10) n
       WHERE first OR (n = 1 AND device_id % 100 = 0)""",
    """INSERT INTO suspicion (device_id, reason, account_id, value, detected_at)
       SELECT device_id, 'DUPLICATED_DEV_SERIAL_NUM_SEALING', $1, 'S' || device_id / 2, $2
       FROM (SELECT device_id, row_number() OVER (ORDER BY device_id) <= 100 AS first FROM module
             WHERE account_id = $1) m WHERE first OR device_id % 100 < 2""",
    """INSERT INTO usage (device_id, kind, at, account_id, n)
       SELECT device_id, 'SymmetricKey', date_trunc('day', $2::timestamptz, 'UTC') - n * interval '1 day', $1, 3
       FROM (SELECT device_id, row_number() OVER (ORDER BY device_id) <= 100 AS first FROM module
             WHERE account_id = $1) m CROSS JOIN generate_series(1, 10) n WHERE first OR n = 1""",
)
SUMMED: Final = "SELECT count(*) = count(DISTINCT (kind, owner, bucket)) FROM tally"


class Call(NamedTuple):
    name: str
    path: str
    body: dict[str, Any]


@dataclass
class Account:
    key: str
    prefix: str
    """First digits of its uids."""
    size: int
    token: str = ""

    def uid(self, number: int) -> str:
        return f"{self.prefix}{number:012x}"

    def profile(self, number: int) -> str:
        return f"{self.prefix}-profile-{number:02}-000000"

    @property
    def rows(self) -> list[dict[str, Any]]:
        """For `gatehouse import`."""
        one = {"protocol": "ublox", "apiKey": self.key}
        return [
            {**one, "type": "account", "apiSecret": SECRET},
            *({**one, "type": "profile", "deviceProfileUID": self.profile(number), "profileName": f"profile {number}"}
              for number in range(PROFILES)),
        ]  # fmt: skip

    def calls(self, now: datetime) -> list[Call]:
        since = {"FromDate": (now - timedelta(days=90)).isoformat()}
        some = {"ROTPublicUIDs": [self.uid(number) for number in range(1, ASKED + 1)]}
        return [
            Call("deviceprofile/get", "/deviceprofile/get", {}),
            Call("deviceprofile/get of a tag", "/deviceprofile/get", {"TagNames": ["tag-0"]}),
            Call("device/list/get ALL", "/device/list/get", {}),
            Call("device/list/get WHITELISTED", "/device/list/get", {"Filter": "WHITELISTED"}),
            Call("device/list/get BLACKLISTED", "/device/list/get", {"Filter": "BLACKLISTED"}),
            Call("device/whitelist/get", "/device/whitelist/get", {}),
            Call("rotpublicuid/get of a profile", "/device/rotpublicuid/get", {"DeviceProfileUID": self.profile(3)}),
            Call("rotpublicuid/get UNATTRIBUTED", "/device/rotpublicuid/get", {"DeviceProfileUID": UNATTRIBUTED}),
            Call("rotpublicuid/get of a tag", "/device/rotpublicuid/get", {"TagNames": ["tag-0"]}),
            Call("tag/get", "/tag/get", {}),
            Call("rootca/get", "/ztp/rootca/get", {}),
            Call("rootca/device/get", "/ztp/rootca/device/get", {"CAName": f"ca-{self.prefix}"}),
            Call("notification/get", "/notification/get", since | some),
            Call("clone/get", "/device/clone/get", since | some),
            Call("suspicious/get", "/device/suspicious/get", some),
            Call("activity/get", "/device/activity/get", since | {"ROTPublicUID": self.uid(1)}),
            Call("usage/get", "/device/usage/get", {"FromDate": (now - timedelta(days=50)).date().isoformat()} | some),
        ]


class Client:
    def __init__(self, http: aiohttp.ClientSession, port: int) -> None:
        self._http = http
        self._url = f"http://127.0.0.1:{port}/v1"

    async def post(self, account: Account, path: str, body: dict[str, Any]) -> tuple[Any, float]:
        """The answer, and how many milliseconds it took."""
        headers = {"Authorization": account.token} if account.token else {}
        started = time.perf_counter()
        async with self._http.post(self._url + path, json=body, headers=headers) as response:
            data = await response.read()
        took = (time.perf_counter() - started) * 1_000
        if response.status != 200:  # noqa: PLR2004
            raise SystemExit(f"{path}: {response.status} {data[:300]!r}")
        return json.loads(data), took

    async def authenticate(self, account: Account) -> None:
        account.token = ""
        found, _ = await self.post(account, "/authenticate", {"APIKey": account.key, "APISecret": SECRET})
        account.token = found["AuthToken"]


async def fill(db: asyncpg.Connection, client: Client, account: Account, now: datetime) -> None:
    """Everything that an account of this size has."""
    name = f"ca-{account.prefix}"
    await client.post(
        account, "/ztp/rootca/create", {"CAName": name, "CACertificateValidity": 3650, "DeviceCertificateValidity": 365}
    )
    for number in range(TAGS):
        await client.post(account, "/tag/create", {"TagName": f"tag-{number}"})
        await client.post(
            account, "/tag/assign",
            {"TagNames": [f"tag-{number}"], "DeviceProfileUIDs": [account.profile(number % PROFILES)]},
        )  # fmt: skip
    of = await db.fetchval("SELECT id FROM product WHERE key = $1", account.key)
    profiles = [
        row["group_id"]
        for row in await db.fetch("SELECT group_id FROM device_profile WHERE account_id = $1 ORDER BY group_id", of)
    ]
    root = await db.fetchrow("SELECT id, authority_id FROM root_ca WHERE account_id = $1", of)
    assert root is not None
    for first in range(1, account.size + 1, AT_ONCE):
        last = min(first + AT_ONCE - 1, account.size)
        await db.execute(MODULES, of, first, last, profiles, root["authority_id"], root["id"], account.prefix, now)
        print(f"{last:>9} modules of {account.size}", file=sys.stderr)
    for statement in TOLD:
        await db.execute(statement, *((of, now) if "$2" in statement else (of,)))


def pages_of(answer: Any) -> list[int]:
    """First, in the middle, last. A reply without pages has one."""
    records = answer.get("TotalRecords") if isinstance(answer, dict) else None
    last = max(1, -(-records // PAGE_SIZE)) if isinstance(records, int) else 1
    return sorted({1, (1 + last) // 2, last})


async def measure(client: Client, accounts: Sequence[Account], times: int, now: datetime) -> list[dict[str, Any]]:
    """A row for each call and place of its page."""
    rows = []
    for calls in zip(*(account.calls(now) for account in accounts), strict=True):
        places: list[list[int]] = []
        for account, call in zip(accounts, calls, strict=True):
            answer, _ = await client.post(account, call.path, call.body)
            pages = pages_of(answer)
            places.append([pages[0], pages[len(pages) // 2], pages[-1]])
        paged = any(each[-1] > 1 for each in places)
        for place, name in enumerate(("first", "middle", "last") if paged else ("only",)):
            taken: list[list[float]] = [[] for _ in accounts]
            for turn in range(-3, times):  # the first ones warm up
                for number, (account, call) in enumerate(zip(accounts, calls, strict=True)):
                    body = call.body | ({"PageNumber": places[number][place]} if paged else {})
                    _, took = await client.post(account, call.path, body)
                    if turn >= 0:
                        taken[number].append(took)
            small, large = (statistics.median(each) for each in taken)
            rows.append({
                "call": calls[0].name, "page": name, "small_page": places[0][place], "large_page": places[1][place],
                "small_ms": round(small, 2), "large_ms": round(large, 2), "ratio": round(large / small, 2),
            })  # fmt: skip
    return rows


async def bench(small: int, large: int, times: int) -> list[dict[str, Any]]:
    accounts = [Account("bench-small", "00aa", small), Account("bench-large", "00bb", large)]
    os.environ["GATEHOUSE_UBLOX__RATE"] = "0"
    with tempfile.TemporaryDirectory(prefix="gh-") as data:
        async with embedded_postgres(Path(data) / "postgres") as url:
            os.environ["GATEHOUSE_DATABASE__URL"] = url
            with service(data) as (environment, ports):
                text = "\n".join(json.dumps(row) for account in accounts for row in account.rows)
                await asyncio.to_thread(
                    subprocess.run, [*GATEHOUSE, "import", "-"], cwd=ROOT, env=environment, check=True,
                    stdout=sys.stderr, input=text.encode(),
                )  # fmt: skip
                async with aiohttp.ClientSession() as http:
                    client = Client(http, ports["http"])
                    db = await asyncpg.connect(url)
                    now = datetime.now(UTC)
                    for account in accounts:
                        await client.authenticate(account)
                        await fill(db, client, account, now)
                    while not await db.fetchval(SUMMED):
                        await db.execute(COMPACT, 1_000_000)
                    await db.execute("VACUUM ANALYZE")  # as the server does by itself some minutes later
                    await db.close()
                    for account in accounts:
                        await client.authenticate(account)
                    return await measure(client, accounts, times, datetime.now(UTC))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", type=int, default=1_000)
    parser.add_argument("--large", type=int, default=1_000_000)
    parser.add_argument("--times", type=int, default=30)
    parser.add_argument("--json", action="store_true")
    a = parser.parse_args()
    rows = asyncio.run(bench(a.small, a.large, a.times))
    largest = max(row["ratio"] for row in rows)
    if a.json:
        print(
            json.dumps({"small": a.small, "large": a.large, "times": a.times, "largest_ratio": largest, "rows": rows})
        )
        return 0
    print(f"{'call':30} {'page':6} {a.small:>10} {a.large:>10}  ratio   (pages)")
    for row in rows:
        times = f"{row['small_ms']:>7.2f} ms {row['large_ms']:>7.2f} ms {row['ratio']:>6.2f}"
        print(f"{row['call']:30} {row['page']:6} {times}   {row['small_page']}, {row['large_page']}")
    print(f"largest ratio {largest}; the aim is at most {AIM}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
