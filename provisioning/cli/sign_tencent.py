# ruff: noqa: PLC0415 - heavy modules are imported by the command that needs them: --help stays quick
"""`gatehouse sign tencent`: the registration of a device, and its login."""

import hashlib
import json
import secrets
import shlex
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Final
from urllib.parse import urlsplit

import typer

from provisioning.cli import output
from provisioning.cli.options import Json
from provisioning.cli.run import Desk, on_registry, run

if TYPE_CHECKING:
    from provisioning.settings import Settings

SDK_APP_ID: Final = "12010126"
LOGIN_SECONDS: Final = 3_600
METHODS: Final = ("hmacsha256", "hmacsha1")


@dataclass(frozen=True, slots=True)
class Registration:
    """An HTTP request."""

    url: str
    headers: dict[str, str] = field(repr=False)
    body: str

    @property
    def command(self) -> str:
        words = ["curl", "-s"]
        for name, value in self.headers.items():
            words += ["-H", f"{name}: {value}"]
        return f"{shlex.join([*words, '-d', self.body, self.url])}; echo"


def signed_registration(
    base: str, product: str, device: str, secret: str, *, timestamp: int, nonce: int, method: str = "hmacsha256"
) -> Registration:
    """`base`: `scheme://host[:port]`; `timestamp`: seconds."""
    from provisioning.protocols.tencent import wire

    body = json.dumps({"ProductId": product, "DeviceName": device}, separators=(",", ":"))
    digest = method.removeprefix("hmac")
    host = urlsplit(base).netloc
    text = wire.string_to_sign(
        wire.hosts(host)[0], wire.REGISTER_PATH, algorithm=method, timestamp=str(timestamp), nonce=str(nonce),
        hashed_body=hashlib.new(digest, body.encode()).hexdigest(),
    )  # fmt: skip
    headers = {
        "Content-Type": "application/json", "X-TC-Algorithm": method, "X-TC-Timestamp": str(timestamp),
        "X-TC-Nonce": str(nonce), "X-TC-Signature": wire.sign(secret, text, digest),
    }  # fmt: skip
    return Registration(f"{base}{wire.REGISTER_PATH}", headers, body)


def legacy_registration(
    base: str, product: str, device: str, secret: str, *, timestamp: int, nonce: int
) -> Registration:  # fmt: skip
    """As older C firmware does it."""
    from provisioning.protocols.tencent import wire

    fields = {"deviceName": device, "nonce": nonce, "productId": product, "timestamp": timestamp,
              "signature": wire.legacy_signature(product, device, timestamp, nonce, secret)}  # fmt: skip
    return Registration(f"{base}{wire.LEGACY_PATH}", {}, json.dumps(fields, separators=(",", ":")))


@dataclass(frozen=True, slots=True)
class Login:
    client_id: str
    username: str
    password: str

    def command(self, product: str, device: str, host: str, port: int) -> str:
        """Of the Mosquitto clients: the device tells an event."""
        return shlex.join([
            "mosquitto_pub", "-h", host, "-p", str(port), "-i", self.client_id, "-u", self.username, "-P",
            self.password, "-q", "1", "-t", f"{product}/{device}/event", "-m", '{"temp":21.5}',
        ])  # fmt: skip


def signed_login(product: str, device: str, psk: str, *, connection: str, expiry: int, method: str) -> Login:
    """What the device sends in CONNECT. `expiry`: seconds since the epoch."""
    from provisioning.protocols.tencent import mqtt_wire

    username = f"{product}{device};{SDK_APP_ID};{connection};{expiry}"
    return Login(f"{product}{device}", username, mqtt_wire.mqtt_password(username, psk, method))


def http_base(settings: "Settings") -> str:
    """Where devices of these settings find the HTTP operations, as far as settings tell."""
    from provisioning.sections import Http

    if settings.endpoints.hurl:
        return settings.endpoints.hurl.rstrip("/")
    host = settings.http.host
    host = "127.0.0.1" if host in {"0.0.0.0", "::", ""} else f"[{host}]" if ":" in host else host  # noqa: S104 - compared
    return f"http://{host}:{settings.http.port or Http().port}"


async def _settings(settings: "Settings") -> "Settings":
    return settings


def _secrets(product: str, device: str) -> tuple[str, str]:
    """Of the product, and of the device when it is there and has a key."""

    async def work(desk: Desk) -> tuple[str, str]:
        from provisioning.core import registry
        from provisioning.store import devices

        async with desk.database.read() as tx:
            of = await registry.product(tx, desk.vendor.name, product)
            found = (await devices.by_keys(tx, of.id, [device])).get(device)
        return of.secret, found.secret if found and not of.certificate_login else ""

    return on_registry(work, "tencent")


def tencent(
    *,
    product: Annotated[str, typer.Option(help="Id of the product.")],
    device: Annotated[str, typer.Option(help="Name of the device; it need not be there yet.")],
    secret: Annotated[str | None, typer.Option(help="Of the product; the registry is not asked.")] = None,
    psk: Annotated[str | None, typer.Option(help="Of the device, for its login.")] = None,
    method: Annotated[str, typer.Option(help="hmacsha256 or hmacsha1.")] = "hmacsha256",
    legacy: Annotated[bool, typer.Option("--legacy", help="Register as older C firmware does.")] = False,
    timestamp: Annotated[int | None, typer.Option(min=0, help="Seconds since the epoch; now when not given.")] = None,
    nonce: Annotated[int | None, typer.Option(min=0, max=2**31 - 1, help="Made up when not given.")] = None,
    url: Annotated[str | None, typer.Option(help="Of the HTTP service: scheme://host[:port].")] = None,
    host: Annotated[str | None, typer.Option(help="Of the MQTT listener, for the mosquitto command.")] = None,
    port: Annotated[int | None, typer.Option(min=1, max=65535, help="As --host.")] = None,
    as_json: Json = False,
) -> None:
    """Sign as a Tencent device: its registration, and its login once it has a key.

    Secrets come from the registry. The registration is a command of curl, the login one of the Mosquitto clients.
    """
    from provisioning.cli.sign import mqtt_address

    if method.lower() not in METHODS:
        raise typer.BadParameter(f"--method must be one of {', '.join(METHODS)}")
    _check_names(product, device)
    if secret is None:
        secret, known = _secrets(product, device)
        psk = psk or known
    settings = run(_settings)
    base, at = (url or http_base(settings)).rstrip("/"), int(time.time()) if timestamp is None else timestamp
    once = secrets.randbelow(2**31) if nonce is None else nonce
    if legacy:
        registration = legacy_registration(base, product, device, secret, timestamp=at, nonce=once)
    else:
        registration = signed_registration(
            base, product, device, secret, timestamp=at, nonce=once, method=method.lower()
        )  # fmt: skip
    login = signed_login(
        product, device, psk, connection=secrets.token_hex(3)[:5], expiry=at + LOGIN_SECONDS, method=method.lower()
    ) if psk else None  # fmt: skip
    default_host, default_port = mqtt_address(settings)
    line = login.command(product, device, host or default_host, port or default_port) if login else ""
    if as_json:
        output.print_json({
            "url": registration.url, "headers": registration.headers, "body": registration.body,
            "command": registration.command,
            "login": {"client_id": login.client_id, "username": login.username, "password": login.password,
                      "command": line} if login else None,
        })  # fmt: skip
        return
    print(registration.command)
    if login:
        print(f"\nclient id  {login.client_id}\nuser name  {login.username}\npassword   {login.password}\n\n{line}")


def _check_names(product: str, device: str) -> None:
    from provisioning.protocols.tencent import wire

    for value, form, option in ((product, wire.PRODUCT_ID, "--product"), (device, wire.DEVICE_NAME, "--device")):
        if not form.fullmatch(value):
            raise typer.BadParameter(f"{option} {output.clean(value)}: no device may send this")
