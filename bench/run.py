"""Measure a fresh Gatehouse: a service of its own on free ports, an empty data directory, simulated devices.

usage: run.py [--count N] [--concurrency N]

Devices and service share the machine: the figures are for comparing one state of the code with another on one machine.
"""

import argparse
import collections
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
GATEHOUSE = [sys.executable, "-m", "provisioning"]


@contextlib.contextmanager
def service(data: str) -> Iterator[tuple[dict[str, str], dict[str, int]]]:
    """A running service: the environment that leads to it, and its ports."""
    environment = os.environ | {
        "GATEHOUSE_DATA_DIR": data,
        "GATEHOUSE_HTTP__PORT": "0",
        "GATEHOUSE_MQTT__PORT": "0",
        "GATEHOUSE_LOG__FORMAT": "json",
    }
    command = [*GATEHOUSE, "serve", "--demo", str(ROOT / "config" / "demo.ndjson")]
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    try:
        assert process.stdout is not None
        for line in process.stdout:
            event = json.loads(line)
            if event.get("event") == "ready":
                break
        else:
            raise SystemExit("the service did not start")
        threading.Thread(target=collections.deque, args=(process.stdout, 0), daemon=True).start()  # it must not fill up
        yield environment, {name: event[name] for name in ("http", "https", "mqtt", "mqtts")}
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(20)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=2_000)
    parser.add_argument("--concurrency", type=int, default=50)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="gh-") as data, service(data) as (environment, ports):
        command = [
            *GATEHOUSE, "simulate", "enos", "--count", str(arguments.count), "--concurrency",
            str(arguments.concurrency), "--http-port", str(ports["http"]), "--mqtt-port", str(ports["mqtt"]),
        ]  # fmt: skip
        return subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode


if __name__ == "__main__":
    raise SystemExit(main())
