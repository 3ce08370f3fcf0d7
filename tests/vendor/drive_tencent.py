"""A device on Tencent's own SDK, driven line by line.

Runs in the environment of `config/lock/vendor-tencent.txt`, which has the SDK and nothing of ours. The SDK's host names
and ports are fixed: the resolver of this process leads them to the service, and nothing else of a request is touched.
The SDK keeps one device per process; what it says by callback or in its log is kept as `seen`.
"""

import json
import socket
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

# mypy runs where the SDK is not installed, so all that comes from it is Any.
from hub.hub import QcloudHub  # type: ignore[import-not-found]
from hub.utils.providers import LoggerProvider  # type: ignore[import-not-found]

from tests.vendor.driving import SEEN, Driven, serve

NO_SECRET = "YOUR_DEVICE_SECRET"
"""What the vendor's template of a device's file says, and the SDK looks for."""
DOMAIN = ".tencentdevices.com"


def redirect(ports: dict[str, int]) -> None:
    """Lead the vendor's host names to this machine; `ports`: the SDK's port -> ours."""
    resolve = socket.getaddrinfo

    def getaddrinfo(host: Any, port: Any, *args: Any, **options: Any) -> Any:
        if isinstance(host, str) and host.endswith(DOMAIN):
            SEEN.note("asked", f"{host}:{port}")
            host, port = "127.0.0.1", ports[str(port)]
        return resolve(host, port, *args, **options)

    socket.getaddrinfo = getaddrinfo


class Device(Driven):
    def __init__(self) -> None:
        self._hub: Any = None
        self._file = Path()

    def sdk(self) -> str:
        return version("tencent-iot-device")

    def make(
        self,
        *,
        ports: dict[str, int],
        product: str,
        device: str,
        product_secret: str = "",
        psk: str = NO_SECRET,
        files: list[str] | None = None,
        sub_devices: list[list[str]] | None = None,
    ) -> None:
        """`files`: of the authority, of a client certificate, and of its key; with them it uses TLS.

        With a key it goes without: the SDK makes its client on a server's TLS context, which Python refuses from 3.10.
        """
        redirect(ports)
        authority, certificate, key = files or ["", "", ""]
        subs = [{"sub_productId": pid, "sub_devName": name} for pid, name in sub_devices or []]
        info = {
            "auth_mode": "CERT" if files else "KEY", "productId": product, "productSecret": product_secret,
            "deviceName": device, "key_deviceinfo": {"deviceSecret": psk}, "region": "china",
            "cert_deviceinfo": {"devCaFile": authority, "devCertFile": certificate, "devPrivateKeyFile": key},
            "subDev": {"subdev_num": len(subs), "subdev_list": subs},
        }  # fmt: skip
        self._file = Path(tempfile.mkdtemp()) / "device_info.json"
        self._file.write_text(json.dumps(info))
        LoggerProvider().logger.enable_logger()
        self._hub = QcloudHub(str(self._file), tls=files is not None).hub

    def register(self) -> list[Any]:
        """[0, psk], or [-1, the error's message]."""
        return list(self._hub.dynregDevice())

    def kept(self) -> str:
        """The key in the device's file, where the SDK puts it."""
        return str(json.loads(self._file.read_text())["key_deviceinfo"]["deviceSecret"])

    def connect(self) -> None:
        """The SDK tells by callback, and of a refusal nothing at all: it tries again and again."""
        self._hub.registerMqttCallback(
            lambda present, code, _: SEEN.note("on_connect", f"{present} {code}"),
            lambda code, _: SEEN.note("on_disconnect", str(code)),
            lambda topic, _qos, payload, _: SEEN.note("message", json.dumps([topic, payload])),
            lambda mid, _: SEEN.note("published", f"{mid};"),
            lambda qos, mid, _: SEEN.note("subscribed", f"{mid}: {qos};"),
            lambda mid, _: SEEN.note("unsubscribed", f"{mid};"),
        )
        self._hub.setReconnectInterval(2, 1)
        self._hub.connect()

    def is_connected(self) -> bool:
        return bool(self._hub.isMqttConnected())

    def subscribe(self, topic: str, qos: int = 1) -> list[int]:
        self._hub.registerUserCallback(topic, lambda at, _, payload, __: SEEN.note("own", json.dumps([at, payload])))
        return list(self._hub.subscribe(topic, qos))

    def publish(self, topic: str, payload: dict[str, Any], qos: int = 1) -> list[int]:
        return list(self._hub.publish(topic, payload, qos))

    def disconnect(self) -> None:
        self._hub.disconnect()

    # --- a gateway; 0: the service said so

    def gateway(self) -> int:
        return int(self._hub.gatewayInit()[1])

    def bind(self, product: str, device: str, psk: str) -> int:
        return int(self._hub.gatewaySubdevBind(product, device, psk)[0])

    def unbind(self, product: str, device: str) -> int:
        return int(self._hub.gatewaySubdevUnbind(product, device)[0])

    def online(self, product: str, device: str) -> int:
        return int(self._hub.gatewaySubdevOnline(product, device)[0])

    def offline(self, product: str, device: str) -> int:
        return int(self._hub.gatewaySubdevOffline(product, device)[0])

    def bound(self, product: str, device: str) -> list[str]:
        code, found = self._hub.gatewaySubdevGetBindList(product, device)
        return [f"{each.product_id}/{each.device_name}" for each in found] if code == 0 else ["no answer"]


if __name__ == "__main__":
    serve(Device(), "TecentQcloud")
