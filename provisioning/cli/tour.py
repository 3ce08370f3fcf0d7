"""What a newcomer may paste: a device bootstraps, a few devices activate, one posts; devices of other vendors register.

The README's tour and its test rely on this text.
"""

import json
import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from provisioning.cli.sign import mosquitto_line, now_ms, signed_login
from provisioning.cli.simulate_ublox import DEMO_KEY, DEMO_SECRET
from provisioning.sections import Http, Mqtt
from provisioning.store import devices, groups, products

if TYPE_CHECKING:
    from provisioning.app import Running
    from provisioning.model.registry import Product
    from provisioning.store.database import Tx

SERIAL: Final = "SN-0001"
DEVICE: Final = "meter-1"
CLAIM_ID: Final = "SENSOR0001"
MQTTS_PORT: Final = 18_883
CARRIED: Final = ("GATEHOUSE_CONFIG", "GATEHOUSE_DATA_DIR")
"""Variables that lead to the registry and are no secrets: whoever pastes into another shell needs them."""


def program() -> str:
    """The command by which this process was started, as one would type it here."""
    path = Path(sys.argv[0])
    if path.name != "gatehouse":
        words = [sys.executable, "-m", "provisioning"]
    elif path.is_absolute() and path.is_relative_to(Path.cwd()):
        words = [str(path.relative_to(Path.cwd()))]
    else:
        words = [str(path)]
    carried = [f"{name}={os.environ[name]}" for name in CARRIED if os.environ.get(name)]
    return shlex.join(words) if not carried else f"env {shlex.join([*carried, *words])}"


async def tour(running: "Running") -> str:
    """The commands for this service, with its ports; empty, unless the demo fleet is in its registry."""
    async with running.database.read() as tx:
        demo = dict(reversed(await products.demo_keys(tx)))  # the first of each protocol
        parts = []
        if product := await products.find(tx, "enos", demo.get("enos", "")):
            parts += await _enos(running, tx, product)
        if product := await products.find(tx, "tencent", demo.get("tencent", "")):
            parts += _tencent(running, product)
        if product := await products.find(tx, "ioto", demo.get("ioto", "")):
            parts += _ioto(running, product)
        if demo.get("ublox") == DEMO_KEY:
            parts += _ublox(running)
    if not parts:
        return ""
    lines = ["", "The demo fleet is loaded. Paste into another terminal:"]
    for title, command in parts:
        lines += ["", f"  # {title}", f"  {command}"]
    return "\n".join([*lines, ""])


def _where(running: "Running", listeners: tuple[str, ...] = ("http", "mqtt")) -> str:
    """Options that lead `simulate` to this service."""
    host = running.settings.mqtt.host
    where = [f" --host {host}"] if host != Mqtt().host else []
    usual = {"http": Http().port, "mqtt": Mqtt().port, "mqtts": MQTTS_PORT}
    where += [f" --{name}-port {running.ports[name]}" for name in listeners if running.ports[name] != usual[name]]
    return "".join(where)


def _url(running: "Running") -> str:
    host = running.settings.http.host
    return f"http://{f'[{host}]' if ':' in host else host}:{running.ports['http']}"


async def _enos(running: "Running", tx: "Tx", product: "Product") -> list[tuple[str, str]]:
    of_product = await groups.of_product(tx, product.id)
    fleet = await devices.page(tx, devices.Filter(protocol="enos", product=product.key), 0, 20)
    gatehouse, parts = program(), []
    if of_product:
        group = of_product[0].key
        body = f"{gatehouse} sign enos --group {shlex.quote(group)} --serial {SERIAL}"
        url = f"{_url(running)}/2.4.0/bootstrap"
        parts.append(
            ("A device bootstraps:", f"curl -s -H 'Content-Type: application/json' -d \"$({body})\" {url}; echo")
        )
        which = f" --group {shlex.quote(group)} --product {product.key}" if (group, product.key) != DEMO else ""
        parts.append(
            ("Devices bootstrap, activate and post:", f"{gatehouse} simulate enos --count 5{which}{_where(running)}")
        )
    if device := next((each for each in fleet if each.secret), None):
        login = signed_login(device.identity, device.secret, timestamp=str(now_ms()))
        host, port = running.settings.mqtt.host, running.ports["mqtt"]
        parts.append(("A device posts a measurement:", mosquitto_line(login, device.identity, host, port)))
    return parts


def _tencent(running: "Running", product: "Product") -> list[tuple[str, str]]:
    gatehouse, http = program(), running.ports["http"]
    url = f" --url {_url(running)}" if http != Http().port or running.settings.http.host != Http().host else ""
    sign = f"{gatehouse} sign tencent --product {product.key} --device {DEVICE}{url}"
    which = f" --product {product.key}" if product.key != DEMO_TENCENT else ""
    return [
        ("A Tencent device registers:", f'eval "$({sign} | head -n 1)"'),
        ("Tencent devices register and post:", f"{gatehouse} simulate tencent --count 5{which}{_where(running)}"),
    ]


def _ioto(running: "Running", product: "Product") -> list[tuple[str, str]]:
    token, body = shlex.quote(product.secret), shlex.quote(f'{{"id":"{CLAIM_ID}"}}')
    bearer = shlex.quote(f"Authorization: bearer {product.secret}")
    return [
        ("An Ioto device registers:", f"curl -s -H {bearer} -d {body} {_url(running)}/api/device/register; echo"),
        ("It is claimed, and gets its token when it asks next:", f"{program()} claim {CLAIM_ID}"),
        ("Ioto devices get certificates and connect:",
         f"{program()} simulate ioto --product {token} --count 5{_where(running, ('http', 'mqtts'))}"),
    ]  # fmt: skip


def _ublox(running: "Running") -> list[tuple[str, str]]:
    body = shlex.quote(json.dumps({"APIKey": DEMO_KEY, "APISecret": DEMO_SECRET}))
    post = f"curl -s -H 'Content-Type: application/json' -d {body}"
    return [
        ("An application of u-blox authenticates:", f"{post} {_url(running)}/v1/authenticate; echo"),
        ("Modules bootstrap, get certificates, send encrypted data:",
         f"{program()} simulate ublox --count 3{_where(running, ('http',))}"),
    ]  # fmt: skip


DEMO: Final = ("demo-line", "demopump")
DEMO_TENCENT: Final = "DEMOMETER1"
