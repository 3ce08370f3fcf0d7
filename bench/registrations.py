"""Measure registrations: new Tencent devices per second, durable, beside the least that aiohttp can do.

usage: registrations.py [--count N] [--rounds N] [--concurrency N]

The bare server is aiohttp on uvloop that reads JSON and answers JSON: no signature, no database. One client, without an
HTTP library, sends both the same requests over connections that stay open. It has a core for itself and the servers
have another, where there are two; PostgreSQL goes where the system puts it. Every request names a new device, and an
answer counts when it has a payload, which is when the device is durable. Rounds alternate.

    ratio       registrations per second / requests per second of the bare server, in the median
    cpu_ratio   processor time of the server for one request, bare / ours; PostgreSQL's is not in it

Rate limits are off.
"""

import argparse
import asyncio
import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple, cast

import psutil
import uvloop
from aiohttp import web

sys.path.insert(0, str(Path(__file__).resolve().parent))
from certificates import pin, processor
from run import GATEHOUSE, ROOT, service

from provisioning.cli.sign_tencent import signed_registration

PRODUCT: Final = {
    "type": "product", "protocol": "tencent", "productId": "BENCHMETER", "productSecret": "bench-product-secret",
    "registerType": 2,
}  # fmt: skip
HOST: Final = "127.0.0.1"
LONGEST_ROUND: Final = 120.0


class Round(NamedTuple):
    rate: float
    """Requests per second."""
    processor: float
    """Seconds of the server's processor time for one request."""
    p99: float
    """Milliseconds."""


def bare(port: "multiprocessing.Queue[int]") -> None:
    """Reads JSON, answers JSON."""
    pin(0)

    async def answer(request: web.Request) -> web.Response:
        await request.json()
        return web.json_response({"Response": {"Len": 53, "Payload": "hello world"}})

    async def serve() -> None:
        app = web.Application()
        app.router.add_post("/device/register", answer)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        site = web.TCPSite(runner, HOST, 0)
        await site.start()
        port.put(runner.addresses[0][1])
        await asyncio.Event().wait()

    uvloop.run(serve())


def requests(count: int, run: str) -> list[bytes]:
    """Signed now: their timestamps are good for five minutes."""
    now = int(time.time())
    made = []
    for number in range(count):
        one = signed_registration(
            f"http://{HOST}", str(PRODUCT["productId"]), f"{run}-{number:06}", str(PRODUCT["productSecret"]),
            timestamp=now, nonce=number,
        )  # fmt: skip
        head = {"Host": HOST, "Content-Length": str(len(one.body))} | one.headers
        lines = "".join(f"{name}: {value}\r\n" for name, value in head.items())
        made.append(f"POST /device/register HTTP/1.1\r\n{lines}\r\n{one.body}".encode())
    return made


class Client(asyncio.Protocol):
    """Sends a request when the answer to the one before is there."""

    def __init__(self, left: Iterator[bytes], taken: list[float]) -> None:
        self._left = left
        self._taken = taken
        self._received = b""
        self._sent = 0.0
        self.done = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's are none by descent
        self._next()

    def _next(self) -> None:
        request = next(self._left, None)
        if request is None:
            self._transport.close()
            self.done.set_result(None)
            return
        self._sent = time.perf_counter()
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, found, body = self._received.partition(b"\r\n\r\n")
        if not found:
            return
        length = next(int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:"))
        if len(body) < length:
            return
        if not head.startswith(b"HTTP/1.1 200 ") or b'"Payload"' not in body:
            self._fail(f"a wrong answer: {self._received[:500]!r}")
            return
        self._received = b""
        self._taken.append(time.perf_counter() - self._sent)
        self._next()

    def connection_lost(self, _: Exception | None) -> None:
        if not self.done.done():
            self._fail("the server closed the connection")

    def _fail(self, why: str) -> None:
        self.done.set_exception(RuntimeError(why))
        self._transport.abort()


async def send(port: int, made: list[bytes], concurrency: int) -> tuple[float, list[float]]:
    """Requests per second, and the seconds that each took."""
    loop, left, taken = asyncio.get_running_loop(), iter(made), list[float]()
    started = time.perf_counter()
    clients = [await loop.create_connection(lambda: Client(left, taken), HOST, port) for _ in range(concurrency)]
    async with asyncio.timeout(LONGEST_ROUND):
        await asyncio.gather(*(client.done for _, client in clients))
    return len(made) / (time.perf_counter() - started), taken


def measure(server: psutil.Process, port: int, made: list[bytes], concurrency: int) -> Round:
    before = processor(server)
    rate, taken = uvloop.run(send(port, made, concurrency))
    used = processor(server) - before
    return Round(rate, used / len(made), sorted(taken)[-(-len(taken) * 99 // 100) - 1] * 1_000)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=5_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--concurrency", type=int, default=50)
    a = parser.parse_args()
    os.environ |= {"GATEHOUSE_TENCENT__RATE_PER_ADDRESS": "0", "GATEHOUSE_TENCENT__RATE_PER_PRODUCT": "0"}
    with tempfile.TemporaryDirectory(prefix="gh-") as data, service(data) as (environment, ports):
        subprocess.run(
            [*GATEHOUSE, "import", "-"], cwd=ROOT, env=environment, check=True, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL, input=json.dumps(PRODUCT).encode(),
        )  # fmt: skip
        pin(1)
        queue: multiprocessing.Queue[int] = multiprocessing.Queue()
        peer = multiprocessing.Process(target=bare, args=(queue,), daemon=True)
        peer.start()
        bare_port = queue.get(timeout=20)
        service_process = next(each for each in psutil.Process().children() if "serve" in each.cmdline())
        pin(0, service_process.pid)
        ours: list[Round] = []
        theirs: list[Round] = []
        for number in range(-1, a.rounds):  # the first one warms up
            turn = [(ours, service_process, ports["http"]), (theirs, psutil.Process(peer.pid), bare_port)]
            for rounds, server, port in turn if number % 2 else reversed(turn):
                one = measure(server, port, requests(a.count, f"r{number + 1}"), a.concurrency)
                if number >= 0:
                    rounds.append(one)
                name = "gatehouse" if rounds is ours else "bare"
                told = f"{one.rate:.0f}/s, {one.processor * 1e6:.0f} us, p99 {one.p99:.1f} ms"
                print(f"round {number + 1}: {name:9} {told}", file=sys.stderr)
        peer.terminate()

    def median(rounds: list[Round], field: int) -> float:
        return statistics.median(one[field] for one in rounds)

    result = {
        "registrations_per_s": round(median(ours, 0)),
        "bare_requests_per_s": round(median(theirs, 0)),
        "ratio": round(median(ours, 0) / median(theirs, 0), 2),
        "registration_us": round(median(ours, 1) * 1e6),
        "bare_request_us": round(median(theirs, 1) * 1e6),
        "cpu_ratio": round(median(theirs, 1) / median(ours, 1), 2),
        "registration_p99_ms": round(median(ours, 2), 1),
        "bare_p99_ms": round(median(theirs, 2), 1),
    }
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
