"""A device on EnOS's own SDK, driven line by line.

Runs in the environment of `config/lock/vendor.txt`, which has the SDK and nothing of ours. It uses the SDK as the SDK's
own samples do; what the SDK says by callback or in its log is kept as `seen`.
"""

import hashlib
import json
import re
import time
import urllib.request
from importlib.metadata import version
from typing import Any

# mypy runs where the SDK is not installed, so all that comes from it is Any.
from enos.core.constant.ArrivedTopicPattern import ArrivedTopicPattern  # type: ignore[import-not-found]
from enos.core.constant.DeliveryTopicFormat import DeliveryTopicFormat  # type: ignore[import-not-found]
from enos.core.internal.DecoderRegistry import DecoderRegistry  # type: ignore[import-not-found]
from enos.core.internal.Profile import Profile  # type: ignore[import-not-found]
from enos.core.login.DynamicActivationLogin import DynamicActivationLogin  # type: ignore[import-not-found]
from enos.core.login.NormalDeviceLogin import NormalDeviceLogin  # type: ignore[import-not-found]
from enos.core.message.BaseCommand import BaseCommand  # type: ignore[import-not-found]
from enos.core.message.BaseReply import BaseReply  # type: ignore[import-not-found]
from enos.core.message.IConnectCallback import IConnectCallback  # type: ignore[import-not-found]
from enos.core.MqttClient import MqttClient  # type: ignore[import-not-found]
from enos.message.upstream.tsl.EventPostRequest import EventPostRequest  # type: ignore[import-not-found]
from enos.message.upstream.tsl.MeasurepointPostBatchRequest import (  # type: ignore[import-not-found]
    MeasurepointPostBatchRequest,
)
from enos.message.upstream.tsl.MeasurepointPostRequest import MeasurepointPostRequest  # type: ignore[import-not-found]

from tests.vendor.driving import SEEN, Driven, serve

OPERATION_TIMEOUT = 10


class DisableReply(BaseReply):  # type: ignore[misc]
    def get_format_topic(self) -> str:
        topic: str = DeliveryTopicFormat.DISABLE_DEVICE_REPLY
        return topic


class DisableCommand(BaseCommand):  # type: ignore[misc]
    """The SDK knows the topic and brings no class for it: an application that wants to hear of it writes this one."""

    def get_match_topic_pattern(self) -> Any:
        return re.compile(ArrivedTopicPattern.DISABLE_DEVICE_COMMAND)

    def decode_to_object(self, msg: dict[str, Any]) -> "DisableCommand":
        command = DisableCommand()
        command.__dict__ = msg
        return command

    def get_answer_type(self) -> DisableReply:
        return DisableReply()

    @classmethod
    def get_class(cls) -> str:
        return cls.__name__


def on_disable(command: DisableCommand, path: list[str]) -> DisableReply:
    SEEN.note("disable", json.dumps({"method": command.get_method(), "path": path}))
    reply = DisableReply()
    reply.set_code(200)
    reply.set_message("disabled")
    return reply


class Callback(IConnectCallback):  # type: ignore[misc]
    def on_connect(self) -> None:
        SEEN.note("on_connect")

    def on_disconnect(self) -> None:
        SEEN.note("on_disconnect")

    def on_connect_failed(self) -> None:
        SEEN.note("on_connect_failed")


class Device(Driven):
    def __init__(self) -> None:
        self._client: Any = None

    def sdk(self) -> str:
        return version("enos-mqtt-sdk-python")

    def static_and_wait(self, url: str, product: str, device: str, secret: str) -> bool:
        """Log in with the device's secret, as `ConnectionSample.static_device_login`.

        The SDK waits 10 s when it is refused, and as well when the CONNACK is there before it begins to wait.
        """
        self._make(NormalDeviceLogin(url, product, device, secret))
        self._client.connect()
        return self.is_connected()

    def static(self, url: str, product: str, device: str, secret: str) -> None:
        """Log in with the device's secret; the SDK tells by callback."""
        self._make(NormalDeviceLogin(url, product, device, secret))
        self._client.connect(Callback())

    def static_tls(self, url: str, product: str, device: str, secret: str, files: list[str]) -> None:
        """As `static`, with the files of the authority, of a client certificate, and of its key."""
        self._make(NormalDeviceLogin(url, product, device, secret))
        self._client.get_profile().set_ssl_context(*files)
        self._client.connect(Callback())

    def dynamic(self, url: str, product: str, product_secret: str, device: str) -> None:
        """Log in with the product's secret, as `ConnectionSample.dynamic_device_login`; the SDK tells by callback."""
        self._make(DynamicActivationLogin(url, product, product_secret, device))
        self._client.on_device_dynamic_active = lambda secret: SEEN.note("secret", secret)
        self._client.connect(Callback())

    def _make(self, login: Any) -> None:
        self._client = MqttClient(profile=Profile.create_instance(login))
        self._client.get_profile().set_operation_timeout(OPERATION_TIMEOUT).set_auto_reconnect(True)

    def is_connected(self) -> bool:
        return bool(self._client.is_connected())

    def handle_disable(self) -> None:
        DecoderRegistry.get_decoder_list().append(DisableCommand().decode)
        self._client.register_arrived_message_handler(DisableCommand.get_class(), on_disable)

    def post(self) -> int:
        request = MeasurepointPostRequest.builder().add_measurepoint("temp", 21).set_timestamp(now_ms()).build()
        return int(self._client.publish(request).get_code())

    def post_batch(self) -> int:
        posts = [
            MeasurepointPostRequest.builder().add_measurepoint("temp", value).set_timestamp(now_ms()).build()
            for value in range(3)
        ]
        request = (
            MeasurepointPostBatchRequest.builder()
            .set_requests(posts)
            .set_allow_offline_sub_device(allow_offline_sub_device=True)
            .set_skip_invalid_measurepoints(skip_invalid_measurepoints=False)
            .build()
        )
        return int(self._client.publish(request).get_code())

    def post_event(self) -> int:
        request = EventPostRequest.builder().set_event_identifier("overheated").add_value("temp", 120.0).build()
        return int(self._client.publish(request).get_code())

    def bootstrap(self, url: str, group: str, password: str, serial: str) -> dict[str, str]:
        """The SDK has no call for it; this is the formula that the vendor documents."""
        at = now_ms()
        body = {
            "deviceSn": serial,
            "groupId": group,
            "dpsSignMethod": "sha256",
            "dpsSignTimestamp": at,
            "dpsSign": hashlib.sha256(f"sn{serial}timestamp{at}{password}".encode()).hexdigest(),
            "deviceName": {"defaultValue": serial},
            "timezone": "+08:00",
        }
        request = urllib.request.Request(
            f"{url}/2.4.0/bootstrap", json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=OPERATION_TIMEOUT) as response:
            triple: dict[str, str] = json.load(response)
            return triple

    def close(self) -> None:
        self._client.close()


def now_ms() -> int:
    return time.time_ns() // 1_000_000


if __name__ == "__main__":
    serve(Device(), "enos")
