from tests.conftest import Serve, load_rows
from tests.devices import DEVICE, GROUP, PRODUCT, connect, login, raw


async def test_login(serve: Serve) -> None:
    service = await serve()
    await load_rows(service, PRODUCT, GROUP, DEVICE)
    async with raw(service.mqtt.port) as client:
        assert (await client.login(connect(login()))).code == 0
