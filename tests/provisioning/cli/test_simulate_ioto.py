import pytest

from provisioning.app import Running
from tests.conftest import load_rows
from tests.provisioning.cli.conftest import Command

pytestmark = pytest.mark.server

PRODUCT: dict[str, object] = {"type": "product", "protocol": "ioto", "productToken": "PRODTOKEN1"}


@pytest.fixture
async def port(service: Running) -> list[str]:
    await load_rows(service, PRODUCT)
    return ["--http-port", str(service.ports["http"])]


async def test_agents_live_up_to_the_first_checkin_and_are_gone_again(spawned: Command, port: list[str]) -> None:
    done = await spawned("simulate", "ioto", "--product", "PRODTOKEN1", "--count", "4", *port, "--json")
    assert (done.row["devices"], done.row["wrong"], done.row["errors"]) == (4, 0, [])
    counts = {step: row["count"] for step, row in done.row["ms"].items()}
    assert counts == {"register": 4, "token": 4, "get_certs": 4, "checkin": 4}
    assert "deleted 4 simulated devices" in done.err
    assert (await spawned("device", "list", "--protocol", "ioto")).out == ""


async def test_what_is_wrong_is_told(command: Command, port: list[str]) -> None:
    missing = await command("simulate", "ioto", "--product", "OTHER", *port, code=1)
    assert missing.err.startswith("gatehouse: there is no such product: ")
    options = ("--product", "PRODTOKEN1", "--http-port", "1", "--count", "3", "--json")
    nobody = await command("simulate", "ioto", *options, code=1)
    assert nobody.row["errors"] == ["cannot reach 127.0.0.1:1: a service must run there; `gatehouse serve` starts one"]
