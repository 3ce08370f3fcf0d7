import asyncio
import base64
import json
import re
import shlex
import subprocess
from typing import Any

import pytest
from typer.testing import CliRunner

from provisioning.cli import app
from tests.conftest import ROOT, Serve, load_rows
from tests.provisioning.cli.conftest import Command
from tests.registrants import PRODUCT, PRODUCT_ID, PRODUCT_SECRET, Reply

pytestmark = pytest.mark.slow  # each makes the whole command anew

VECTORS: dict[str, list[dict[str, Any]]] = json.loads((ROOT / "tests" / "vectors.json").read_text("utf-8"))["tencent"]
NAMES = ("--product", PRODUCT_ID, "--device", "xyz")
AT = ("--timestamp", "1700000000", "--nonce", "5456")
GUANGZHOU = ("--url", "https://ap-guangzhou.gateway.tencentdevices.com/")


def signed(*args: str, code: int = 0) -> str:
    result = CliRunner().invoke(app, ["sign", "tencent", *args])
    assert result.exit_code == code, result.stderr
    return result.stdout if code == 0 else result.stderr


def test_the_registration_of_the_reference() -> None:
    row = json.loads(signed(*NAMES, *AT, *GUANGZHOU, "--secret", PRODUCT_SECRET, "--json"))
    (vector,) = [each for each in VECTORS["register_signature"] if each["name"] == "hmacsha256"]
    assert row["body"] == vector["inputs"]["body"]
    assert row["headers"]["X-TC-Signature"] == vector["expected"]["X-TC-Signature"]
    assert row["url"] == "https://ap-guangzhou.gateway.tencentdevices.com/device/register"
    assert row["login"] is None


def test_the_registration_of_older_firmware() -> None:
    row = json.loads(signed(*NAMES, *AT, "--legacy", "--secret", PRODUCT_SECRET, "--json"))
    assert json.loads(row["body"])["signature"] == "YmMzOGVjMDlhYzY4ZjQwNzYwMWE1ZDUxZDU2OGY5NGYzNjEwMDM4OA=="
    assert row["url"] == "http://127.0.0.1:8080/register/dev"


def test_a_login_is_signed_by_the_psk() -> None:
    psk = "lDZ6Uqt+I9E0wW7rvDUs7Q=="
    output = signed(*NAMES, *AT, "--secret", PRODUCT_SECRET, "--psk", psk, "--host", "::1", "--port", "1883")
    words = shlex.split(output.splitlines()[-1])
    options = dict(zip(words[1::2], words[2::2], strict=True))
    assert (words[0], options["-h"], options["-p"], options["-t"]) == (
        "mosquitto_pub", "::1", "1883", f"{PRODUCT_ID}/xyz/event",
    )  # fmt: skip
    assert re.fullmatch(rf"{PRODUCT_ID}xyz;12010126;[0-9a-f]{{5}};1700003600", options["-u"])
    assert re.fullmatch(r"[0-9a-f]{64};hmacsha256", options["-P"])
    for name, value in (("client id", options["-i"]), ("user name", options["-u"]), ("password", options["-P"])):
        assert f"{name:<9}  {value}" in output.splitlines()


@pytest.mark.parametrize("args", [
    [], ["--product", "p"], ["--product", "p", "--device", "a b", "--secret", "s"],
    ["--product", "a-b", "--device", "d", "--secret", "s"],
    ["--product", "p", "--device", "d", "--secret", "s", "--method", "sha256"],
    ["--product", "p", "--device", "d", "--secret", "s", "--nonce", "-1"],
])  # fmt: skip
def test_wrong_usage(args: list[str]) -> None:
    assert "Usage:" in signed(*args, code=2)


@pytest.mark.server
async def test_secrets_come_from_the_registry(command: Command) -> None:
    await command("product", "create", PRODUCT_ID, "--secret", PRODUCT_SECRET, "--protocol", "tencent")
    before = (await command("sign", "tencent", *NAMES, *AT, "--json")).row
    assert before == (await command("sign", "tencent", *NAMES, *AT, "--secret", PRODUCT_SECRET, "--json")).row
    await command("device", "create", PRODUCT_ID, "xyz", "--protocol", "tencent")
    assert (await command("sign", "tencent", *NAMES, "--json")).row["login"]["client_id"] == f"{PRODUCT_ID}xyz"
    assert (
        "there is no product nope"
        in (await command("sign", "tencent", "--product", "nope", "--device", "d", code=1)).err
    )


@pytest.mark.server
@pytest.mark.parametrize("more", [[], ["--legacy"], ["--method", "hmacsha1"]])
async def test_the_printed_line_registers(serve: Serve, more: list[str]) -> None:
    running = await serve()
    await load_rows(running, PRODUCT)
    url = f"http://127.0.0.1:{running.http.port}"
    line = await asyncio.to_thread(signed, *NAMES, "--url", url, "--secret", PRODUCT_SECRET, *more)
    assert line.count("\n") == 1
    done = await asyncio.to_thread(
        subprocess.run, ["/bin/sh", "-c", line], capture_output=True, check=True, timeout=20
    )  # fmt: skip
    psk = Reply(200, done.stdout.decode().strip()).psk()
    assert len(base64.b64decode(psk)) == 16
