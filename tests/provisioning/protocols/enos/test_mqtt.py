"""EnOS over MQTT: claims and admissions without a service; CONNACK map, dialects and activation through one."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker import packets
from provisioning.app import Running
from provisioning.core import registry
from provisioning.core.login import Means
from provisioning.model.admission import NOTHING, Rejection
from provisioning.model.credential import Credential, DeviceCredential
from provisioning.model.identity import Identity
from provisioning.model.mqtt import Connect, Message
from provisioning.model.refusal import Reason, Refusal
from provisioning.model.registry import Device
from provisioning.protocols.enos import mqtt_wire, wire
from provisioning.protocols.enos.mqtt import Enos
from provisioning.sections import Enos as Settings
from tests.conftest import Serve, load_rows, until
from tests.devices import DEVICE, PRODUCT, Raw, connect, login, now_ms, raw
from tests.provisioning.protocols.conftest import Away, Lines

IDENTITY = Identity("enos", "pk1", "dk1")
FRESH: dict[str, object] = {"type": "device", "protocol": "enos", "productKey": "pk1", "deviceKey": "new"}
"""A device that has no secret of its own yet."""
STATIC = {
    "type": "product",
    "protocol": "enos",
    "productKey": "static",
    "productSecret": "ss",
    "dynamicActivation": False,
}
OPEN = {
    "type": "product", "protocol": "enos", "productKey": "open", "productSecret": "os", "dynamicActivation": True,
    "autoCreate": True,
}  # fmt: skip
INFO = "/ext/session/pk1/new/thing/activate/info"


def enos(**settings: Any) -> Enos:
    return Enos(Settings(**settings))


def credential(**more: Any) -> Credential:
    fields: dict[str, Any] = {
        "id": 7,
        "secret": "ds1",
        "epoch": 3,
        "asset": "as1",
        "disabled": False,
        "activated": False,
    } | more
    return Credential(IDENTITY, None, DeviceCredential(**fields))


# --- from CONNECT to claim ---


@pytest.mark.parametrize("username", [None, "", "dk1", "dk1;pk1", "dk1|pk1"])
def test_not_mine(username: str | None) -> None:
    assert enos().read_connect(replace(connect(login()), username=username)) is None


def test_user_name_is_split_at_the_last_ampersand() -> None:
    claim = enos().read_connect(connect(login("dk1", product="pk1")))
    assert claim is not None
    assert (claim.identity, claim.means) == (IDENTITY, Means.DEVICE)
    with pytest.raises(Refusal) as caught:
        enos().read_connect(replace(connect(login()), username="a&dk1&pk1"))
    assert caught.value.reason is Reason.NOT_PROVEN


@pytest.mark.parametrize(
    "username", ["&", "dk1&", "&pk1", "d/k&pk1", "dk1&p+k", "dk1&#", f"{'x' * 65}&pk1", "dk\n&pk1", "ä&pk1"]
)
def test_impossible_keys_are_unknown_devices(username: str) -> None:
    with pytest.raises(Refusal) as caught:
        enos().read_connect(replace(connect(login()), username=username))
    assert caught.value.reason is Reason.NOT_PROVEN


@pytest.mark.parametrize("level", [0, 3, 6, 131])
def test_protocol_levels(level: int) -> None:
    for good in (4, 5):
        assert enos().read_connect(connect(login(), level=good)) is not None
    with pytest.raises(Refusal) as caught:
        enos().read_connect(connect(login(), level=level))
    assert caught.value.reason is Reason.UNSUPPORTED_VERSION


def test_sign_methods_can_be_narrowed() -> None:
    narrow = enos(allowed_signmethods=("sha256", "hmacsha256"))
    for method in wire.DIGESTS:
        wanted = connect(login(method=method))
        assert enos().read_connect(wanted) is not None
        if method in {"sha256", "hmacsha256"}:
            assert narrow.read_connect(wanted) is not None
            continue
        with pytest.raises(Refusal) as caught:
            narrow.read_connect(wanted)
        assert (caught.value.reason, caught.value.detail) == (Reason.MALFORMED, {"field": "signmethod"})


@pytest.mark.parametrize(
    ("timestamp", "late", "fresh"),
    [
        ("{}", 0, True),
        ("{}.4567", 0, True),
        ("{}", -50_000, True),
        ("{}", 50_000, True),
        ("{}", -70_000, False),
        ("{}", 70_000, False),
        ("{}.x", 0, False),
        ("-{}", 0, False),
        ("2524608000000", 0, False),
        ("yesterday", 0, False),
        ("9" * 5000, 0, False),
        ("\u0663" * 13, 0, False),
    ],
)
def test_login_freshness(timestamp: str, late: int, fresh: bool) -> None:
    wanted = connect(login(at=timestamp.format(now_ms() + late)))
    assert enos().read_connect(wanted) is not None, "by default a timestamp is opaque"
    if fresh:
        assert enos(login_freshness=60).read_connect(wanted) is not None
        return
    with pytest.raises(Refusal) as caught:
        enos(login_freshness=60).read_connect(wanted)
    assert caught.value.reason is Reason.STALE


texts = st.text(st.characters())
usernames = st.none() | texts | st.tuples(texts, texts).map("&".join) | st.just("dk1&pk1")
client_ids = texts | st.tuples(
    texts,
    st.sampled_from(["2", "3", "4", "9", ""]) | texts,
    st.sampled_from([*wire.DIGESTS, "SHA256", ""]) | texts,
    texts,
).map(lambda part: f"{part[0]}|securemode={part[1]}, signmethod={part[2]},timestamp={part[3]}|")


@settings(deadline=None)  # time is not what is tested
@given(st.integers(0, 255), client_ids, usernames, st.none() | st.binary())
def test_any_connect_is_read_or_refused(
    level: int, client_id: str, username: str | None, password: bytes | None
) -> None:
    wanted = Connect(level=level, client_id=client_id, username=username, password=password, clean=True, keepalive=0)
    try:
        claim = enos(login_freshness=60).read_connect(wanted)
    except Refusal as refusal:
        rejection = enos().reject(refusal.reason)
        assert isinstance(rejection, Rejection)
        return
    if claim is not None:
        assert not claim.proven_by("no such secret")
        assert claim.identity.protocol == "enos"


# --- from claim to admission ---


def test_admission_of_a_device() -> None:
    claim = enos().read_connect(connect(login()))
    assert claim is not None
    admission = enos().admit(claim, credential())
    assert (admission.identity, admission.device_id, admission.epoch, admission.push) == (IDENTITY, 7, 3, None)
    assert admission.max_payload == 524_288


def test_admission_of_an_activation() -> None:
    vendor = enos(activation_strict=True)
    claim = vendor.read_connect(connect(login(mode="3", secret="ps1")))
    assert claim is not None
    admission = vendor.admit(claim, credential())
    push = admission.push
    assert push is not None
    assert push.message.topic == "/ext/session/pk1/dk1/thing/activate/info"
    assert json.loads(push.message.payload)["params"] == {
        "assetId": "as1", "productKey": "pk1", "deviceKey": "dk1", "deviceSecret": "ds1",
    }  # fmt: skip
    assert (push.message.qos, push.message.retain) == (1, False)
    assert push.reply_topic == "/ext/session/pk1/dk1/thing/activate/info_reply"
    assert admission.once
    # All sends fall within 4 s of CONNACK: the C SDK gives up after 4.9 s.
    assert 0.1 <= push.delay <= 0.3
    assert push.delay + push.repeats * push.interval < 4


RIGHTS = [  # section 10: (topic or filter, may publish, may subscribe)
    ("/sys/pk1/dk1/thing/measurepoint/post", True, True),
    ("/sys/pk1/dk1/thing/measurepoint/post_reply", True, True),
    ("/ext/session/pk1/dk1/combine/login", True, True),
    ("/ext/session/pk1/dk1/thing/activate/info_reply", True, True),
    ("/ext/session/pk1/dk1/thing/activate/info", False, True),
    ("/sys/pk1/dk1/thing/service/+", True, True),
    ("/sys/pk1/dk1/thing/event/+/post_reply", True, True),
    ("/sys/pk1/dk1/#", True, True),
    ("/sys/pk1/dk2/thing/measurepoint/post", False, False),
    ("/sys/pk2/dk1/thing/measurepoint/post", False, False),
    ("/sys/pk1/dk11/thing/measurepoint/post", False, False),
    ("/sys/pk1/dk1", False, False),
    ("/sys/pk1/+/thing/service/x", False, False),
    ("/sys/+/dk1/thing/service/x", False, False),
    ("/sys/pk1/#", False, False),
    ("/ext/session/pk1/+/thing/activate/info", False, False),
    ("/ext/session/#", False, False),
    ("#", False, False),
    ("+/+/pk1/dk1/#", False, False),
    ("sys/pk1/dk1/x", False, False),
    ("$share/g//sys/pk1/dk1/x", False, False),
    ("$SYS/#", False, False),
    ("", False, False),
]


@pytest.mark.parametrize(("topic", "publish", "subscribe"), RIGHTS)
def test_topic_rights(topic: str, publish: bool, subscribe: bool) -> None:
    claim = enos().read_connect(connect(login()))
    assert claim is not None
    rights = enos().admit(claim, credential()).rights
    assert rights.may_publish(topic) is publish
    assert rights.may_subscribe(topic) is subscribe


# --- what the cloud answers ---


def test_conduct() -> None:
    vendor = enos()
    post = "/sys/pk1/dk1/thing/measurepoint/post"
    request = b'{"id":"9","version":"1.1","method":"thing.measurepoint.post","params":{"measurepoints":{}}}'
    answer = vendor.on_message(IDENTITY, Message(post, request, qos=1))
    assert answer.reply == Message(f"{post}_reply", b'{"id":"9","code":200,"data":""}', qos=1)
    assert vendor.on_message(IDENTITY, Message("/sys/pk1/dk1/other", request)) == NOTHING
    forbidden = vendor.on_forbidden(IDENTITY, Message("/sys/pk1/dk2/x", request)).reply
    assert forbidden is not None
    assert forbidden.topic == "/sys/pk1/dk2/x_reply"
    assert json.loads(forbidden.payload) == {
        "id": "9", "code": 1009, "message": "Publish to topic with no write permission", "data": "",
    }  # fmt: skip
    oversize = vendor.on_oversize(IDENTITY, Message(post, request[:20])).reply
    assert oversize is not None
    assert json.loads(oversize.payload) == {
        "id": "9", "code": 1008, "message": "Msg size is too large, discard the message", "data": "",
    }  # fmt: skip


def test_farewell() -> None:
    notice = enos(farewell_timeout=0.5).farewell(IDENTITY, Reason.DISABLED)
    assert notice is not None
    assert notice.message.topic == "/sys/pk1/dk1/thing/disable"
    assert notice.reply_topic == "/sys/pk1/dk1/thing/disable_reply"
    assert notice.timeout == 0.5
    assert enos().farewell(IDENTITY, Reason.NOT_PROVEN) is None


# --- through a service ---

server = pytest.mark.server


@asynccontextmanager
async def logged_in(running: Running, credentials: dict[str, str], code: int = 0, **more: Any) -> AsyncIterator[Raw]:
    async with raw(running.mqtt.port) as client:
        connack = await client.login(connect(credentials, **more))
        assert connack.code == code, f"CONNACK {connack.code}, expected {code}"
        yield client


async def answer(running: Running, wanted: Connect) -> int:
    """The CONNACK code; a refusal must end the connection."""
    async with raw(running.mqtt.port) as client:
        connack = await client.login(wanted)
        assert connack.code == 0 or await client.is_closed(), "refused, and the connection stayed open"
        return connack.code


async def find(running: Running, product: str = "pk1", key: str = "new") -> Device:
    async with running.database.read() as tx:
        return await registry.device(tx, "enos", product, key)


@pytest.fixture
async def running(serve: Serve) -> Running:
    service = await serve(block={"refusals": 0})
    off = DEVICE | {"deviceKey": "off", "disabled": True}
    dark = FRESH | {"deviceKey": "dark", "disabled": True}
    await load_rows(service, PRODUCT, STATIC, OPEN, DEVICE, FRESH, off, dark, FRESH | {"productKey": "static"})
    return service


def changed(**fields: Any) -> Connect:
    return replace(connect(login()), **fields)


GOOD_PASSWORD = login(at="17")["password"].encode()
CONNACKS: list[tuple[str, Connect, int, int]] = [  # 8.3: what, CONNECT, code, reason code of MQTT 5
    ("accepted", connect(login()), 0, 0),
    ("no parameter block", changed(client_id="dk1"), 2, 0x85),
    ("empty client id", changed(client_id=""), 2, 0x85),
    ("unclosed parameter block", changed(client_id="dk1|securemode=2,signmethod=sha256,timestamp=17"), 2, 0x85),
    ("parameter missing", changed(client_id="dk1|securemode=2,timestamp=17|"), 2, 0x85),
    ("unknown securemode", changed(client_id="dk1|securemode=1,signmethod=sha256,timestamp=17|"), 2, 0x85),
    ("unknown signmethod", changed(client_id="dk1|securemode=2,signmethod=sha3,timestamp=17|"), 2, 0x85),
    ("clientId empty", changed(client_id="|securemode=2,signmethod=sha256,timestamp=17|"), 2, 0x85),
    ("clientId too long", connect(login(client="x" * 65)), 2, 0x85),
    ("clientId as long as may be", connect(login(client="x" * 64)), 0, 0),
    ("unknown device", connect(login("nobody")), 4, 0x86),
    ("unknown product", connect(login(product="nobody")), 4, 0x86),
    ("wrong secret", connect(login(secret="wrong")), 4, 0x86),
    ("password missing", changed(password=None), 4, 0x86),
    ("password empty", changed(password=b""), 4, 0x86),
    ("password not text", changed(password=b"\xff\0" * 32), 4, 0x86),
    ("password of another method", connect(login(method="md5") | {"password": GOOD_PASSWORD.decode()}), 4, 0x86),
    ("user name without &", changed(username="dk1"), 4, 0x86),
    ("no user name", changed(username=None, password=None), 4, 0x86),
    ("keys that cannot be", changed(username="d/k&p#k"), 4, 0x86),
    ("device secret where the product's is due", connect(login("new", "ds1", mode="3")), 4, 0x86),
    ("product secret where the device's is due", connect(login("dk1", "ps1")), 4, 0x86),
    ("activation of an unknown device", connect(login("nobody", "ps1", mode="3")), 4, 0x86),
    ("activation with a wrong product secret", connect(login("new", "wrong", mode="3")), 4, 0x86),
    ("device disabled", connect(login("off")), 5, 0x8A),
    ("device disabled, password wrong", connect(login("off", "wrong")), 4, 0x86),
    ("activation of a disabled device", connect(login("dark", "ps1", mode="3")), 5, 0x8A),
    ("product without activation", connect(login("new", "ss", mode="3", product="static")), 5, 0x87),
    ("product without activation, secret wrong", connect(login("new", "x", mode="3", product="static")), 4, 0x86),
    ("product without activation, device unknown", connect(login("x", "ss", mode="3", product="static")), 4, 0x86),
    ("securemode 4", changed(client_id="dk1|securemode=4,signmethod=sha256,timestamp=17|"), 5, 0x87),
    ("securemode 4 as the SDK sends it",
     changed(client_id="channel|securemode=4,signmethod=hmacsha256,timestamp=1.5|", username="%channel%&pk1"), 5, 0x87),
]  # fmt: skip


@server
async def test_connack_map(running: Running) -> None:
    wrong = []
    for what, wanted, code, code5 in CONNACKS:
        for level, expected in ((4, code), (5, code5)):
            got = await answer(running, replace(wanted, level=level))
            if got != expected:
                wrong.append(f"{what}, level {level}: {got:#x} instead of {expected:#x}")
    assert not wrong


@server
async def test_other_protocol_levels(running: Running) -> None:
    assert await answer(running, connect(login(), level=3)) == 1
    async with raw(running.mqtt.port) as client:
        client.send(packets.write_connect(connect(login())).replace(b"MQTT\x04", b"MQTT\x06"))
        connack = await client.read()
        assert isinstance(connack, packets.Connack)
        assert connack.code == 1
        assert await client.is_closed()


@server
async def test_database_away(serve: Serve, away: Away, lines: Lines) -> None:
    service = await serve(database={"timeout": 1.0})
    await load_rows(service, PRODUCT, DEVICE, FRESH)
    async with away():
        assert await answer(service, connect(login())) == 3
        assert await answer(service, connect(login("new", "ps1", mode="3"), level=5)) == 0x88
    logins = [line for line in lines if line["event"] == "mqtt.login"]
    assert [(line["outcome"], line["reason"]) for line in logins] == [("failed", "unavailable")] * 2
    assert not [line for line in lines if line.get("exc_info")]

    async def is_back() -> bool:
        return await answer(service, connect(login())) == 0

    await until(is_back, "a login after the database came back")


@server
async def test_blocked_after_four_refusals(serve: Serve) -> None:
    service = await serve()
    await load_rows(service, PRODUCT, DEVICE, DEVICE | {"deviceKey": "dk2"})
    wrong = connect(login(secret="wrong"))
    assert [await answer(service, wrong) for _ in range(4)] == [4] * 4
    assert await answer(service, connect(login())) == 5
    assert await answer(service, connect(login(), level=5)) == 0x9F
    assert await answer(service, connect(login("dk2"))) == 0


# --- dialects ---

DIALECTS = [  # 8.2: (what, client id, user name's device, sign method, upper case)
    ("the vendor's page", "{c}|securemode=2,signmethod=sha256,timestamp=1548753362502|", "123456", "sha256", True),
    ("its template: a blank", "{c}|securemode=2, signmethod=sha256,timestamp=1548753362502|", "123456", "sha256", True),
    ("Java", "{c}|securemode=2,signmethod=sha256,timestamp=1700000000000|",
     "dk1{ip=10.0.0.5,version=enos-mqtt-2.2.16,compress=gzip,more=" + "x" * 80 + "}", "sha256", False),
    ("C", "{c}|securemode=2,signmethod=sha256,timestamp=2524608000000|", "pk1.dk1", "sha256", True),
    ("Python", "{c}|securemode=2,signmethod=hmacsha256,timestamp=1795175182378.191|", "dk1", "hmacsha256", False),
    ("Python, older", "{c}|securemode=2,signmethod=hmacsha1,timestamp=1795175289308|", "dk1", "hmacsha1", True),
    ("sha1", "{c}|securemode=2,signmethod=sha1,timestamp=1|", "dk1", "sha1", False),
    ("md5", "{c}|securemode=2,signmethod=md5,timestamp=1|", "dk1", "md5", True),
    ("hmacmd5", "{c}|securemode=2,signmethod=hmacmd5,timestamp=1|", "dk1", "hmacmd5", False),
    ("other order, case and more pairs", "{c}|TimeStamp=1,foo=bar,SIGNMETHOD=SHA256,lan=C,SecureMode=2|",
     "dk1", "sha256", False),
]  # fmt: skip


@server
async def test_dialects(running: Running) -> None:
    for what, template, client, method, upper in DIALECTS:
        read = mqtt_wire.read_client_id(template.replace("{c}", client))
        assert (read.client_id, read.signmethod) == (client, method)
        password = mqtt_wire.mqtt_password(read, "dk1", "pk1", "ds1")
        sent = {"identifier": template.replace("{c}", client), "username": "dk1&pk1"}
        for mixed in (password if upper else password.lower(), password.swapcase(), password.capitalize()):
            assert await answer(running, connect(sent | {"password": mixed})) == 0, what
        assert await answer(running, connect(sent | {"password": password[::-1]})) == 4, what


@server
async def test_settings_of_the_login(serve: Serve) -> None:
    service = await serve(block={"refusals": 0}, enos={"allowed_signmethods": ["sha256"], "login_freshness": 60})
    await load_rows(service, PRODUCT, DEVICE)
    assert await answer(service, connect(login())) == 0
    assert await answer(service, connect(login(method="hmacsha256"))) == 2
    assert await answer(service, connect(login(method="md5"))) == 2
    assert await answer(service, connect(login(at=str(now_ms() - 70_000)))) == 4
    assert await answer(service, connect(login(at="2524608000000"))) == 4
    assert await answer(service, connect(login(at=f"{now_ms()}.25"))) == 0


# --- dynamic activation ---


async def activate(client: Raw, topic: str = INFO) -> dict[str, str]:
    """Wait for the push, acknowledge it, and give its parameters."""
    push = await client.read_publish()
    assert (push.message.topic, push.message.qos, push.message.retain) == (topic, 1, False)
    assert b": " not in push.message.payload
    assert b", " not in push.message.payload
    info = json.loads(push.message.payload)
    assert (info["id"], info["version"], info["method"]) == ("1", "1.0", "thing.activate.info")
    client.publish(f"{topic}_reply", b'{"id":"1","code":200,"data":null,"message":"device activate success"}')
    assert await client.ping() == []
    params: dict[str, str] = info["params"]
    return params


@server
async def test_dynamic_activation_and_login(running: Running) -> None:
    async with logged_in(running, login("new", "ps1", mode="3")) as client:
        params = await activate(client)
    device = await find(running)
    assert params == {
        "assetId": device.asset, "productKey": "pk1", "deviceKey": "new", "deviceSecret": device.secret,
    }  # fmt: skip
    assert device.asset
    assert await answer(running, connect(login("new", params["deviceSecret"]))) == 0
    assert (await find(running)).activated_at is not None


@server
async def test_activation_is_open_until_the_first_login(running: Running) -> None:
    """Some clients redo it at each boot; the secret stays the same. A login with it closes the door, a reset opens."""
    again = login("new", "ps1", mode="3")
    secrets = set()
    for _ in range(2):
        async with logged_in(running, again) as client:
            secrets.add((await activate(client))["deviceSecret"])
    assert len(secrets) == 1
    assert await answer(running, connect(login("new", *secrets))) == 0
    assert await answer(running, connect(again)) == 5
    assert await answer(running, connect(again | {"password": "wrong"})) == 4
    async with running.database.begin() as tx:
        await registry.reset(tx, await registry.device(tx, "enos", "pk1", "new"))

    async def is_open() -> bool:
        return await answer(running, connect(again)) == 0

    await until(is_open, "an activation after the reset")
    async with logged_in(running, again) as client:
        renewed = (await activate(client))["deviceSecret"]
    assert renewed not in secrets
    assert await answer(running, connect(login("new", *secrets))) == 4
    assert await answer(running, connect(login("new", renewed))) == 0


@server
async def test_activation_retry(running: Running) -> None:
    again = connect(login("new", "ps1", mode="3"))
    assert [await answer(running, again) for _ in range(7)] == [0, 0, 0, 0, 0, 5, 5]
    async with running.database.begin() as tx:
        await registry.reopen_activation(tx, await registry.device(tx, "enos", "pk1", "new"))
    assert await answer(running, again) == 0


@server
async def test_activation_retry_of_the_settings(serve: Serve) -> None:
    service = await serve(enos={"activation_retry": 1})
    await load_rows(service, PRODUCT, FRESH)
    again = connect(login("new", "ps1", mode="3"))
    assert [await answer(service, again) for _ in range(2)] == [0, 5]


@server
async def test_strict_activation_ends_with_the_acknowledgement(serve: Serve) -> None:
    service = await serve(enos={"activation_strict": True}, block={"refusals": 0})
    await load_rows(service, PRODUCT, FRESH)
    again = login("new", "ps1", mode="3")
    assert await answer(service, connect(again)) == 0  # not acknowledged: not consumed
    async with logged_in(service, again) as client:
        secret = (await activate(client))["deviceSecret"]

    async def is_closed() -> bool:
        return await answer(service, connect(again)) == 5

    await until(is_closed, "the end of the activation")
    assert await answer(service, connect(login("new", secret))) == 0


@server
async def test_auto_create(running: Running) -> None:
    topic = "/ext/session/open/made/thing/activate/info"
    assert await answer(running, connect(login("made", "wrong", mode="3", product="open"))) == 4
    with pytest.raises(Refusal):
        await find(running, "open", "made")
    async with logged_in(running, login("made", "os", mode="3", product="open")) as client:
        params = await activate(client, topic)
    device = await find(running, "open", "made")
    assert (device.secret, device.asset) == (params["deviceSecret"], params["assetId"])
    assert await answer(running, connect(login("made", device.secret, product="open"))) == 0


@server
async def test_one_line_for_each_login(running: Running, lines: Lines) -> None:
    good, wrong = connect(login()), connect(login(secret="wrong"))
    bad = changed(client_id="dk1")
    for wanted in (good, wrong, bad):
        await answer(running, wanted)
    async with logged_in(running, login("new", "ps1", mode="3")) as client:
        secret = (await activate(client))["deviceSecret"]
    seen = [line for line in lines if line["event"] == "mqtt.login"]
    assert [(line["outcome"], line.get("reason"), line.get("connack")) for line in seen] == [
        ("accepted", None, None), ("refused", "not_proven", 4), ("refused", "malformed", 2), ("accepted", None, None),
    ]  # fmt: skip
    assert [(line["protocol"], line.get("product"), line.get("device"), line.get("means")) for line in seen] == [
        ("enos", "pk1", "dk1", "device"), ("enos", "pk1", "dk1", "device"), ("enos", None, None, None),
        ("enos", "pk1", "new", "product"),
    ]  # fmt: skip
    assert all(line["peer"].startswith("127.0.0.1:") for line in seen)
    assert [line["outcome"] for line in lines if line["event"] == "mqtt.activate"] == ["accepted"]
    whole = json.dumps(lines, default=str)
    for hidden in (good.password, wrong.password, bad.password, secret, "ds1", "ps1"):
        assert hidden is not None
        assert (hidden.decode() if isinstance(hidden, bytes) else hidden) not in whole


# --- messages ---


@server
async def test_reports_are_answered(running: Running) -> None:
    post = "/sys/pk1/dk1/thing/measurepoint/post"
    async with logged_in(running, login()) as client:
        assert await client.subscribe((f"{post}_reply", 1)) == (1,)
        client.publish(
            post, b'{"id":"42","version":"1.1","method":"thing.measurepoint.post","params":{"measurepoints":{"a":1}}}'
        )
        reply = (await client.read_publish()).message
        assert (reply.topic, json.loads(reply.payload)) == (f"{post}_reply", {"id": "42", "code": 200, "data": ""})
        client.publish(post, b'{"id":"43","method":"thing.event.x.post","params":{}}')
        assert json.loads((await client.read_publish()).message.payload)["code"] == 1260
        client.publish(post, b'{"id":"\\ud800","method":"thing.measurepoint.post","params":{}}')
        assert json.loads((await client.read_publish()).message.payload)["code"] == 1220


@server
async def test_forbidden_and_oversize_messages_are_answered_unasked(running: Running) -> None:
    async with logged_in(running, login()) as client:
        client.publish("/sys/pk1/dk2/thing/measurepoint/post", b'{"id":"5"}')
        reply = (await client.read_publish()).message
        assert reply.topic == "/sys/pk1/dk2/thing/measurepoint/post_reply"
        assert (json.loads(reply.payload)["id"], json.loads(reply.payload)["code"]) == ("5", 1009)
        client.publish("/sys/pk1/dk1/thing/measurepoint/post", b'{"id":"6","x":"' + b"x" * 524_288)
        reply = (await client.read_publish()).message
        assert (json.loads(reply.payload)["id"], json.loads(reply.payload)["code"]) == ("6", 1008)
        longest = "/sys/pk1/dk2/".ljust(1_024, "x")
        client.publish(longest, b'{"id":"7"}')
        assert (await client.read_publish()).message.topic == f"{longest}_reply"


@server
async def test_session_of_activation_has_full_rights_after_its_acknowledgement(running: Running) -> None:
    post = "/sys/pk1/new/thing/measurepoint/post"
    request = b'{"id":"1","version":"1.1","method":"thing.measurepoint.post","params":{"measurepoints":{}}}'
    async with logged_in(running, login("new", "ps1", mode="3")) as client:
        client.publish(post, request)
        early = (await client.read_publish()).message
        assert (early.topic, json.loads(early.payload)["code"]) == (f"{post}_reply", 1009)
        await activate(client)
        assert await client.subscribe((f"{post}_reply", 1)) == (1,)
        client.publish(post, request)
        assert json.loads((await client.read_publish()).message.payload)["code"] == 200
