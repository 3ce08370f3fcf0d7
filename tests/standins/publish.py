"""For the tour on a machine without the Mosquitto clients: the options of mosquitto_pub that it uses, on paho."""

import argparse
import sys

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion


def main() -> int:
    parser = argparse.ArgumentParser(add_help=False)
    for option in ("-h", "-i", "-t", "-m"):
        parser.add_argument(option, required=True)
    parser.add_argument("-p", type=int, required=True)
    parser.add_argument("-q", type=int, default=0)
    for option in ("-u", "-P", "--cafile", "--cert", "--key"):
        parser.add_argument(option)
    a = parser.parse_args()
    client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id=a.i)
    if a.u:
        client.username_pw_set(a.u, a.P)
    if a.cafile:
        client.tls_set(a.cafile, a.cert, a.key)
    refused: list[str] = []

    def on_connect(client: mqtt.Client, _data: object, _flags: object, code: object, _properties: object) -> None:
        if getattr(code, "is_failure", False):
            refused.append(str(code))
            client.disconnect()
        else:
            client.publish(a.t, a.m, qos=a.q)

    client.on_connect = on_connect
    client.on_publish = lambda client, *_: client.disconnect()
    try:
        client.connect(a.h, a.p)
    except OSError as error:
        print(f"Unable to connect ({error}).", file=sys.stderr)
        return 1
    client.loop_forever()
    if refused:
        print(f"Connection error: Connection Refused: {refused[0]}.", file=sys.stderr)
    return 5 if refused else 0


if __name__ == "__main__":
    raise SystemExit(main())
