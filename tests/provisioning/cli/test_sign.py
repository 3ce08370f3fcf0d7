import json
import shlex
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from provisioning.cli import app
from provisioning.cli.sign import measurement
from tests.provisioning.cli.conftest import Command

pytestmark = pytest.mark.slow  # each makes the whole command anew

VECTORS: dict[str, list[dict[str, Any]]] = json.loads((Path(__file__).parents[2] / "vectors.json").read_text())["enos"]


def signed(*args: str, code: int = 0) -> str:
    result = CliRunner().invoke(app, ["sign", "enos", *args])
    assert result.exit_code == code, result.stderr
    return result.stdout if code == 0 else result.stderr


LOGINS = [v for v in VECTORS["mqtt_password"] if "mqttPassword" in v.get("expected", {})]


@pytest.mark.parametrize("vector", LOGINS, ids=lambda vector: vector["name"])
def test_logins_are_those_of_the_vectors(vector: dict[str, Any]) -> None:
    """Without a registry: no database is touched."""
    given, expected = vector["inputs"], vector["expected"]
    dynamic = ["--dynamic"] if given["securemode"] == 3 else []
    row = json.loads(signed(
        "--product", given["productKey"], "--device", given["deviceKey"], "--secret", given["secret"], *dynamic,
        "--client-id", given["clientId"], "--timestamp", str(given["timestamp"]), "--json",
        "--method", given["signmethod"],
    ))  # fmt: skip
    assert row["client_id"] == expected["mqttClientId"]
    assert row["username"] == expected["mqttUsername"]
    assert row["password"].lower() == expected["mqttPassword"].lower()


@pytest.mark.parametrize("vector", VECTORS["dps_sign"], ids=lambda vector: vector["name"])
def test_bootstraps_are_those_of_the_vectors(vector: dict[str, Any]) -> None:
    given = vector["inputs"]
    body = json.loads(signed("--group", "g", "--serial", given["sn"], "--secret", given["groupPassword"],
                             "--timestamp", str(given["timestamp"])))  # fmt: skip
    assert body["dpsSign"] == vector["expected"]
    assert body["dpsSignTimestamp"] == given["timestamp"]


def test_the_last_line_is_a_command_that_a_shell_reads() -> None:
    output = signed("--product", "pk", "--device", "dk", "--secret", "a'b", "--host", "::1", "--port", "1883")
    words = shlex.split(output.splitlines()[-1])
    options = dict(zip(words[1::2], words[2::2], strict=True))
    assert words[0] == "mosquitto_pub"
    assert (options["-h"], options["-p"], options["-u"], options["-q"]) == ("::1", "1883", "dk&pk", "1")
    assert (options["-t"], options["-m"]) == ("/sys/pk/dk/thing/measurepoint/post", measurement())
    for name, value in (("client id", options["-i"]), ("user name", options["-u"]), ("password", options["-P"])):
        assert f"{name:<9}  {value}" in output.splitlines()


def test_a_dynamic_activation_waits_for_its_secret() -> None:
    words = shlex.split(signed("--product", "pk", "--device", "dk", "--secret", "s", "--dynamic").splitlines()[-1])
    assert words[0] == "mosquitto_sub"
    assert words[-4:] == ["-C", "1", "-t", "/ext/session/pk/dk/thing/activate/info"]


@pytest.mark.parametrize(
    "args",
    [
        [], ["--product", "p"], ["--group", "g"], ["--product", "p", "--device", "d", "--group", "g", "--serial", "s"],
        ["--product", "p", "--device", "d", "--secret", "s", "--method", "crc32"],
        ["--group", "g", "--serial", "s", "--secret", "s", "--timestamp", "now"],
        ["--group", "g", "--serial", "s", "--dynamic"],
    ],
)  # fmt: skip
def test_wrong_usage(args: list[str]) -> None:
    assert "Usage:" in signed(*args, code=2)


def test_what_no_device_may_send() -> None:
    assert "clientId is malformed" in signed(
        "--product", "p", "--device", "d", "--secret", "s", "--client-id", "x" * 65, code=1
    )


@pytest.mark.server
async def test_secrets_come_from_the_registry(command: Command) -> None:
    await command("product", "create", "pk", "--secret", "product-secret")
    await command("group", "create", "g", "--password", "group-password")
    await command("device", "create", "pk", "dk", "--secret", "device-secret")
    names = ("sign", "enos", "--product", "pk", "--device", "dk", "--timestamp", "1", "--json")
    for more, secret in (((), "device-secret"), (("--dynamic",), "product-secret")):
        assert (await command(*names, *more)).row == (await command(*names, *more, "--secret", secret)).row
    body = ("sign", "enos", "--group", "g", "--serial", "SN1", "--timestamp", "1649147455506")
    assert (await command(*body)).row == (await command(*body, "--secret", "group-password")).row


@pytest.mark.server
async def test_what_is_not_in_the_registry_cannot_sign(command: Command) -> None:
    await command("product", "create", "pk")
    assert (
        "no device dk in product pk" in (await command("sign", "enos", "--product", "pk", "--device", "dk", code=1)).err
    )
    assert "no group g" in (await command("sign", "enos", "--group", "g", "--serial", "s", code=1)).err
