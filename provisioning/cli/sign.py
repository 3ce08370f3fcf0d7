# ruff: noqa: PLC0415 - heavy modules are imported by the command that needs them: --help stays quick
"""`gatehouse sign`: what a device would send, for a person with a shell."""

import json
import shlex
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated
from urllib.parse import urlsplit

import typer

from provisioning.cli import output, sign_tencent
from provisioning.cli.options import Json
from provisioning.cli.run import Desk, Failure, leave, on_registry, run

if TYPE_CHECKING:
    from provisioning.model.identity import Identity
    from provisioning.settings import Settings

app = typer.Typer(help="Print what a device would send.", no_args_is_help=True)
app.command()(sign_tencent.tencent)


@app.callback()
def _of() -> None:
    """Print what a device would send."""


@dataclass(frozen=True, slots=True)
class Login:
    client_id: str
    username: str
    password: str


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def signed_login(
    identity: "Identity",
    secret: str,
    *,
    timestamp: str,
    dynamic: bool = False,
    method: str = "sha256",
    client: str = "",
) -> Login:
    """What the device sends in CONNECT; with `dynamic` and the product's secret, to be given its own."""
    from provisioning.protocols.enos import mqtt_wire

    mode = mqtt_wire.PRODUCT_SECRET_MODE if dynamic else mqtt_wire.DEVICE_SECRET_MODE
    client_id = mqtt_wire.ClientId(client or identity.device, mode, method.lower(), timestamp)
    return Login(
        mqtt_wire.write_client_id(client_id), f"{identity.device}&{identity.product}",
        mqtt_wire.mqtt_password(client_id, identity.device, identity.product, secret),
    )  # fmt: skip


def signed_bootstrap(
    group: str, serial: str, password: str, *, timestamp: int, name: str = "", timezone: str = "+00:00"
) -> dict[str, object]:
    """The body of a bootstrap request."""
    from provisioning.protocols.enos import wire

    return {
        "deviceSn": serial, "groupId": group, "dpsSignMethod": "sha256", "dpsSignTimestamp": timestamp,
        "dpsSign": wire.sign("sha256", password, sn=serial, timestamp=str(timestamp)),
        "deviceName": {"defaultValue": name or serial}, "timezone": timezone,
    }  # fmt: skip


def measurement(request_id: str = "1") -> str:
    """The payload of a measurement."""
    return json.dumps(
        {"id": request_id, "version": "1.0", "method": "thing.measurepoint.post",
         "params": {"measurepoints": {"temp": 21.5}}}, separators=(",", ":"),
    )  # fmt: skip


def post_topic(identity: "Identity") -> str:
    return f"/sys/{identity.product}/{identity.device}/thing/measurepoint/post"


def mosquitto_line(login: Login, identity: "Identity", host: str, port: int, *, dynamic: bool = False) -> str:
    """The command of the Mosquitto clients that plays this device: it posts, or waits for its secret."""
    from provisioning.protocols.enos import mqtt_wire

    words = ["mosquitto_sub" if dynamic else "mosquitto_pub", "-h", host, "-p", str(port), "-i", login.client_id,
             "-u", login.username, "-P", login.password, "-q", "1"]  # fmt: skip
    if dynamic:
        return shlex.join([*words, "-C", "1", "-t", mqtt_wire.activation_topic(identity)])
    return shlex.join([*words, "-t", post_topic(identity), "-m", measurement()])


def mqtt_address(settings: "Settings") -> tuple[str, int]:
    """Where devices of these settings find the MQTT listener, as far as settings tell."""
    if settings.endpoints.murl:
        parts = urlsplit(settings.endpoints.murl)
        return parts.hostname or "", parts.port or 0
    from provisioning.sections import Mqtt

    host = settings.mqtt.host
    return "127.0.0.1" if host in {"0.0.0.0", "::", ""} else host, settings.mqtt.port or Mqtt().port  # noqa: S104 - compared


@app.command()
def enos(
    *,
    product: Annotated[str | None, typer.Option(help="Key of the product: sign a login.")] = None,
    device: Annotated[str | None, typer.Option(help="Key of the device.")] = None,
    group: Annotated[str | None, typer.Option(help="Key of the enrolment group: sign a bootstrap.")] = None,
    serial: Annotated[str | None, typer.Option(help="Serial number of the device.")] = None,
    secret: Annotated[str | None, typer.Option(help="Sign with this; the registry is not asked.")] = None,
    dynamic: Annotated[bool, typer.Option("--dynamic", help="Dynamic activation: with the product's secret.")] = False,
    method: Annotated[str, typer.Option(help="Digest: sha256, sha1, md5, or an SDK's name of it.")] = "sha256",
    client_id: Annotated[str, typer.Option(help="The device key when not given.")] = "",
    timestamp: Annotated[str | None, typer.Option(help="Milliseconds since the epoch; now when not given.")] = None,
    name: Annotated[str, typer.Option(help="Device name in a bootstrap.")] = "",
    timezone: Annotated[str, typer.Option(help="Time zone in a bootstrap.")] = "+00:00",
    host: Annotated[str | None, typer.Option(help="Of the MQTT listener, for the mosquitto command.")] = None,
    port: Annotated[int | None, typer.Option(min=1, max=65535, help="As --host.")] = None,
    as_json: Json = False,
) -> None:
    """Sign as an EnOS device: a login (--product, --device) or the body of a bootstrap (--group, --serial).

    Secrets come from the registry. The last line of a login is a command of the Mosquitto clients.
    """
    if product and device and not (group or serial):
        from provisioning.model.identity import Identity

        _login(Identity("enos", product, device), secret, timestamp or str(now_ms()), dynamic=dynamic, method=method,
               client=client_id, host=host, port=port, as_json=as_json)  # fmt: skip
    elif group and serial and not (product or device or dynamic):
        at = timestamp or str(now_ms())
        if not (at.isdecimal() and at.isascii()):
            raise typer.BadParameter("--timestamp of a bootstrap is milliseconds since the epoch")
        password = secret if secret is not None else _group_password(group)
        body = signed_bootstrap(group, serial, password, timestamp=int(at), name=name, timezone=timezone)
        output.print_json(body)
    else:
        raise typer.BadParameter("give --product and --device for a login, or --group and --serial for a bootstrap")


def _group_password(key: str) -> str:
    async def work(desk: Desk) -> str:
        from provisioning.core import registry

        async with desk.database.read() as tx:
            return (await registry.group(tx, desk.vendor.name, key)).password

    return on_registry(work)


def _secret(identity: "Identity", *, of_product: bool) -> str:
    async def work(desk: Desk) -> str:
        from provisioning.core import registry

        async with desk.database.read() as tx:
            if of_product:
                return (await registry.product(tx, identity.protocol, identity.product)).secret
            found = await registry.device(tx, identity.protocol, identity.product, identity.device)
        if not found.secret:
            raise Failure(f"{identity.product}/{identity.device} is not allocated: it has no secret to sign with")
        return found.secret

    return on_registry(work)


async def _settings(settings: "Settings") -> "Settings":
    return settings


def _login(
    identity: "Identity", secret: str | None, timestamp: str, *, dynamic: bool, method: str, client: str,
    host: str | None, port: int | None, as_json: bool,
) -> None:  # fmt: skip
    from provisioning.model.refusal import Refusal
    from provisioning.protocols.enos import mqtt_wire, wire

    if method.lower() not in wire.DIGESTS:
        raise typer.BadParameter(f"--method must be one of {', '.join(wire.DIGESTS)}")
    default_host, default_port = mqtt_address(run(_settings))
    host, port = host or default_host, port or default_port
    if secret is None:
        secret = _secret(identity, of_product=dynamic)
    login = signed_login(identity, secret, timestamp=timestamp, dynamic=dynamic, method=method, client=client)
    try:
        mqtt_wire.read_client_id(login.client_id)
    except Refusal as refusal:
        leave(1, f"no device may send this: {refusal.detail.get('field')} is malformed")
    line = mosquitto_line(login, identity, host, port, dynamic=dynamic)
    if as_json:
        output.print_json(
            {"client_id": login.client_id, "username": login.username, "password": login.password, "host": host,
             "port": port, "command": line}
        )  # fmt: skip
        return
    print(f"client id  {login.client_id}\nuser name  {login.username}\npassword   {login.password}\n\n{line}")
