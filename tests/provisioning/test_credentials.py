import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import botocore.exceptions
import pytest

from provisioning import credentials as module
from provisioning import sections, settings
from provisioning.aws import Aws
from provisioning.credentials import AHEAD, PAUSE, Credentials, Sts, credentials_provider, policy, session_name
from provisioning.model.refusal import Reason, Refusal
from tests.aws import REGION, Account, allow

pytestmark = pytest.mark.server

ROLE_MAY = allow("s3:*", "arn:aws:s3:::fleet/*")


@pytest.fixture
async def fleet(aws: Account) -> Account:
    """A bucket with a file of each of two devices, and the role that devices are given."""

    def make() -> None:
        aws.make_bucket("fleet")
        for device in ("one", "two"):
            aws.client("s3").put_object(Bucket="fleet", Key=f"{device}/notes.txt", Body=device.encode())
        aws.make_role("IotoDeviceRole", ROLE_MAY)

    await asyncio.to_thread(make)
    return aws


def stated(account: Account, **more: Any) -> settings.Settings:
    aws = account.settings | more.pop("aws", {})
    return settings.load(aws=aws, credentials={"provider": "sts"} | more)


class Time:
    """A clock that a test moves: the time of day and the seconds of a process."""

    def __init__(self) -> None:
        self.now = datetime.now(UTC)
        self.clock = 0.0

    def pass_(self, span: timedelta) -> None:
        self.now += span
        self.clock += span.total_seconds()


@pytest.fixture
async def time(fleet: Account) -> Time:
    return Time()


@pytest.fixture
async def sts(fleet: Account, time: Time) -> AsyncIterator[Sts]:
    found = stated(fleet)
    async with Aws(found.aws) as opened:
        provider = Sts(opened, found.credentials, now=lambda: time.now, clock=lambda: time.clock)
        yield provider
        await provider.close()


def read(account: Account, found: Credentials, key: str) -> bytes:
    s3 = account.client("s3", found.access_key_id, found.secret_access_key, found.session_token)
    body: bytes = s3.get_object(Bucket="fleet", Key=key)["Body"].read()
    return body


async def test_a_device_opens_its_own_objects_and_no_others(fleet: Account) -> None:
    keys = await asyncio.to_thread(fleet.make_user, "gatehouse", allow("sts:AssumeRole", "*"))
    await fleet.enforce()
    secrets = {"access_key_id": keys[0], "secret_access_key": keys[1]}
    async with credentials_provider(stated(fleet, aws=secrets)) as provider:
        found = await provider.credentials("P1", "one")
    assert await asyncio.to_thread(read, fleet, found, "one/notes.txt") == b"one"
    with pytest.raises(botocore.exceptions.ClientError, match="AccessDenied"):
        await asyncio.to_thread(read, fleet, found, "two/notes.txt")
    with pytest.raises(botocore.exceptions.ClientError, match="AccessDenied"):
        await asyncio.to_thread(fleet.client("s3", *_keys(found)).list_objects_v2, Bucket="fleet")


async def test_what_is_forged_is_refused(fleet: Account) -> None:
    keys = await asyncio.to_thread(fleet.make_user, "gatehouse", allow("sts:AssumeRole", "*"))
    await fleet.enforce()
    secrets = {"access_key_id": keys[0], "secret_access_key": keys[1]}
    async with credentials_provider(stated(fleet, aws=secrets)) as provider:
        found = await provider.credentials("P1", "one")
    s3 = fleet.client("s3", found.access_key_id, "x" * 40, found.session_token)
    with pytest.raises(botocore.exceptions.ClientError, match="SignatureDoesNotMatch"):
        await asyncio.to_thread(s3.get_object, Bucket="fleet", Key="one/notes.txt")


def _keys(found: Credentials) -> tuple[str, str, str]:
    return found.access_key_id, found.secret_access_key, found.session_token


async def test_they_are_good_for_an_hour_and_of_the_form_that_agents_read(sts: Sts, time: Time) -> None:
    found = await sts.credentials("P1", "one")
    assert timedelta(minutes=59) < found.expires - time.now < timedelta(minutes=61)
    assert found.region == REGION
    assert found.access_key_id.startswith("ASIA")
    assert found.secret_access_key
    assert found.session_token
    assert found.secret_access_key not in repr(found)


async def test_they_are_given_again_as_long_as_they_are_good_for_half_an_hour(sts: Sts, time: Time) -> None:
    first = await sts.credentials("P1", "one")
    assert (await sts.credentials("P1", "two")).access_key_id != first.access_key_id
    time.pass_(timedelta(minutes=28))
    assert await sts.credentials("P1", "one") is first
    time.pass_(timedelta(minutes=2))
    assert first.expires - time.now < AHEAD + timedelta(minutes=1)
    time.pass_(timedelta(minutes=5))
    with pytest.raises(Refusal, match="are the clocks right"):  # ours is early, that of AWS is not
        await sts.credentials("P1", "one")


async def test_one_request_is_made_for_a_device_that_asks_often_at_once(sts: Sts) -> None:
    found = await asyncio.gather(*(sts.credentials("P1", "one") for _ in range(8)))
    assert len({each.access_key_id for each in found}) == 1


async def test_one_that_gives_up_waiting_takes_nothing_from_the_others(sts: Sts) -> None:
    first = asyncio.create_task(sts.credentials("P1", "one"))
    second = asyncio.create_task(sts.credentials("P1", "one"))
    await asyncio.sleep(0)
    first.cancel()
    assert (await second).access_key_id
    assert first.cancelled()


async def test_another_role_and_region_by_name(fleet: Account) -> None:
    await asyncio.to_thread(fleet.make_role, "Other", ROLE_MAY)
    found = stated(fleet, role="arn:aws:iam::123456789012:role/Other", region="us-west-2", duration=7_200)
    async with credentials_provider(found) as provider:
        given = await provider.credentials("P1", "one")
    assert given.region == "us-west-2"
    assert given.expires - datetime.now(UTC) > timedelta(minutes=119)


async def test_what_sts_refuses_is_told_in_one_line(fleet: Account) -> None:
    await fleet.enforce()
    async with credentials_provider(stated(fleet)) as provider:
        with pytest.raises(Refusal) as caught:
            await provider.credentials("P1", "one")
    assert caught.value.reason is Reason.UNAVAILABLE
    error = str(caught.value.detail["error"])
    assert error.startswith("STS refuses: InvalidClientTokenId: ")
    assert "\n" not in error


async def test_an_sts_that_is_away_is_told_and_left_alone_for_a_while(unused_tcp_port: int) -> None:
    aws = {"endpoint": f"http://127.0.0.1:{unused_tcp_port}", "access_key_id": "a", "secret_access_key": "b"}
    found = settings.load(aws=aws, credentials={"provider": "sts"})
    time, asked = Time(), 0

    def hang_up(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        asked += 1
        writer.close()

    async with Aws(found.aws) as opened:
        provider = Sts(opened, found.credentials, clock=lambda: time.clock)
        with pytest.raises(Refusal, match="STS cannot be used: Could not connect") as caught:
            await provider.credentials("P1", "one")
        assert caught.value.reason is Reason.UNAVAILABLE
        server = await asyncio.start_server(hang_up, "127.0.0.1", unused_tcp_port)
        for device in ("one", "two"):
            with pytest.raises(Refusal, match="STS cannot be used: Could not connect"):
                await provider.credentials("P1", device)
        assert asked == 0
        time.pass_(timedelta(seconds=PAUSE))
        with pytest.raises(Refusal, match="STS cannot be used: Connection was closed"):
            await provider.credentials("P1", "two")
        assert asked > 0
        await provider.close()
    server.close()
    await server.wait_closed()


async def test_no_more_are_kept_than_fit(sts: Sts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_KEPT", 2)
    found = {device: await sts.credentials("P1", device) for device in ("one", "two")}
    assert await sts.credentials("P1", "one") is found["one"]
    await sts.credentials("P1", "three")
    assert await sts.credentials("P1", "one") is found["one"]
    assert await sts.credentials("P1", "two") is not found["two"]


async def test_an_sts_that_never_answers_is_given_up() -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    found = settings.load(
        aws={"endpoint": f"http://127.0.0.1:{port}", "access_key_id": "a", "secret_access_key": "b", "timeout": 0.3},
        credentials={"provider": "sts"},
    )
    async with credentials_provider(found) as provider:
        async with asyncio.timeout(5):
            with pytest.raises(Refusal, match=r"STS (does not answer|cannot be used)") as caught:
                await provider.credentials("P1", "one")
    assert caught.value.reason is Reason.UNAVAILABLE
    server.close()
    await server.wait_closed()


async def test_a_name_that_could_mean_more_in_a_policy_is_refused() -> None:
    async with Aws(sections.Aws()) as unused:
        provider = Sts(unused, sections.Credentials())
        for name in ("", "*", "a*", "../b", "a/b", "a b", '"', "${aws:x}", "{product}", "ü", "x" * 65, "a\n"):
            for product, device in ((name, "one"), ("P1", name)):
                with pytest.raises(Refusal) as caught:
                    await provider.credentials(product, device)
                assert caught.value.reason is Reason.MALFORMED


async def test_fixed_ones() -> None:
    found = settings.load(
        aws={"region": "eu-west-3"},
        credentials={"provider": "static", "access_key_id": "AK", "secret_access_key": "SK", "session_token": "T"},
    )
    async with credentials_provider(found) as provider:
        given = await provider.credentials("P1", "one")
    assert _keys(given) == ("AK", "SK", "T")
    assert given.region == "eu-west-3"
    assert given.expires - datetime.now(UTC) > timedelta(minutes=59)


async def test_none() -> None:
    async with credentials_provider(settings.load()) as provider:
        with pytest.raises(Refusal) as caught:
            await provider.credentials("P1", "one")
    assert caught.value.reason is Reason.UNSUPPORTED


@pytest.mark.parametrize(
    ("template", "device", "name"),
    [
        ("{device}", "CLAIM00001", "CLAIM00001"),
        ("{device}", "x", "device-x"),
        ("gatehouse-{product}-{device}", "d", "gatehouse-P1-d"),
        ("{device}", "x" * 64, "x" * 64),
    ],
)
def test_session_names(template: str, device: str, name: str) -> None:
    assert session_name(template, "P1", device) == name


def test_long_session_names_stay_different() -> None:
    names = {session_name("gatehouse-{device}", "P1", "x" * 63 + last) for last in "ab"}
    assert len(names) == 2
    assert {len(name) for name in names} == {64}


def test_the_policy_of_a_device() -> None:
    filled = json.loads(policy(sections.Credentials().policy, "P1", "one"))
    assert filled["Statement"][0]["Resource"] == "arn:aws:s3:::*/one/*"
    assert " " not in policy(sections.Credentials().policy, "P1", "one")


@pytest.mark.parametrize(
    ("section", "words"),
    [
        ({"provider": "static"}, "provider static needs access_key_id and secret_access_key"),
        ({"policy": "{device}"}, "must be JSON"),
        ({"policy": '["{device}"]'}, "a JSON object, that names its"),
        ({"policy": '{"Resource": "*"}'}, "a JSON object, that names its"),
        ({"duration": 1_800}, "greater than or equal to 2100"),
        ({"role": "a role"}, "match pattern"),
        ({"session_name": "{device} {x}"}, "match pattern"),
    ],
)
def test_settings_that_cannot_work_are_refused(section: dict[str, object], words: str) -> None:
    with pytest.raises(settings.SettingsError, match=words):
        settings.load(credentials=section)
