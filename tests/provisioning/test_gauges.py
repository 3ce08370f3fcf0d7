"""provisioning/gauges.py"""

import pytest

from provisioning.app import Running
from tests.conftest import load_rows, until
from tests.devices import DEVICE, PRODUCT, device, login

pytestmark = pytest.mark.server


async def test_what_runs_is_told(service: Running) -> None:
    await load_rows(service, PRODUCT, DEVICE)

    def told() -> dict[str, float]:
        lines = service.metrics.expose().decode().splitlines()
        return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines if line[0] != "#")}

    async with device(service.mqtt.port, login()):
        values = told()
        assert values["gatehouse_sessions"] == 1
        assert values['gatehouse_connections{listener="mqtt"}'] == 1
        assert values['gatehouse_connections{listener="mqtts"}'] == 0
        assert values["gatehouse_credentials_cached"] == 1
        assert values['gatehouse_pool_connections{state="open"}'] >= 1
    await until(lambda: told()["gatehouse_sessions"] == 0, "the session's end")
    queues = {name for name in told() if name.startswith("gatehouse_queue_depth")}
    expected = ("look_up", "login_write", "registration", "enrolment", "presence", "outbox", "messages")
    assert queues == {f'gatehouse_queue_depth{{queue="{queue}"}}' for queue in expected}
    assert told()["gatehouse_dead_letters"] == 0
    directions = {name for name in told() if name.startswith("gatehouse_messages_total")}
    assert len(directions) == 4
