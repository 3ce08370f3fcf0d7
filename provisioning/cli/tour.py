"""What a newcomer may paste: a device bootstraps, a few devices activate, one posts a measurement.

The README's tour and its test rely on this text.
"""

import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from provisioning.cli.sign import mosquitto_line, now_ms, signed_login
from provisioning.settings import Http, Mqtt
from provisioning.store import devices, groups, products

if TYPE_CHECKING:
    from provisioning.app import Running

SERIAL: Final = "SN-0001"
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
        demo = await products.demo_keys(tx)
        product = await products.find(tx, "enos", demo[0]) if demo else None
        if product is None:
            return ""
        of_product = await groups.of_product(tx, product.id)
        fleet = await devices.page(tx, devices.Filter(protocol="enos", product=product.key), 0, 20)
    gatehouse, http, mqtt = program(), running.ports["http"], running.ports["mqtt"]
    host, mqtt_host = running.settings.http.host, running.settings.mqtt.host
    group = of_product[0].key if of_product else None
    parts = []
    if group is not None:
        body = f"{gatehouse} sign enos --group {shlex.quote(group)} --serial {SERIAL}"
        url = f"http://{f'[{host}]' if ':' in host else host}:{http}/2.4.0/bootstrap"
        parts.append(
            ("A device bootstraps:", f"curl -s -H 'Content-Type: application/json' -d \"$({body})\" {url}; echo")
        )
        where = [f" --host {mqtt_host}"] if mqtt_host != Mqtt().host else []
        where += [f" --http-port {http}"] if http != Http().port else []
        where += [f" --mqtt-port {mqtt}"] if mqtt != Mqtt().port else []
        which = f" --group {shlex.quote(group)} --product {product.key}" if (group, product.key) != DEMO else ""
        parts.append(
            ("Devices bootstrap, activate and post:", f"{gatehouse} simulate enos --count 5{which}{''.join(where)}")
        )
    if device := next((each for each in fleet if each.secret), None):
        login = signed_login(device.identity, device.secret, timestamp=str(now_ms()))
        parts.append(("A device posts a measurement:", mosquitto_line(login, device.identity, mqtt_host, mqtt)))
    lines = ["", "The demo fleet is loaded. Paste into another terminal:"]
    for title, command in parts:
        lines += ["", f"  # {title}", f"  {command}"]
    return "\n".join([*lines, ""])


DEMO: Final = ("demo-line", "demopump")
