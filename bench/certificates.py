"""Measure certificates: leaves issued per second, and full mutual-TLS handshakes beside a bare server.

usage: certificates.py [--leaves N] [--handshakes N] [--rounds N]

The bare server does the same handshake with the same certificates and nothing else, on the same event loop. Rounds
alternate. Two ratios, 1.0 where ours costs as little as the bare one:

    cpu_ratio    processor time of the server for one handshake, bare / ours: the median over the rounds, each against
                 its neighbour. It is the one that counts: neither the client nor what else is busy here moves it much.
    rate_ratio   handshakes per second, ours / bare. Where the client is the slower one, it says nothing of the server.

Server and client are pinned to a core each where there are two.
"""

import argparse
import asyncio
import json
import multiprocessing
import os
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, NamedTuple

import psutil
import uvloop

sys.path.insert(0, str(Path(__file__).resolve().parent))
from run import GATEHOUSE, ROOT, service

from provisioning.core import ca, certify, pki
from provisioning.opening import registry
from provisioning.settings import load

RESTING: Final = 0.02
"""Seconds of processor time in a tenth of a second, two ticks of the system's clock: a service at rest needs less."""


class Round(NamedTuple):
    rate: float
    """Handshakes per second."""
    processor: float
    """Seconds of the server's processor time for one handshake."""


def pin(cpu: int, process: int = 0) -> None:
    if (os.cpu_count() or 1) > 1 and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(process, {cpu})


async def issue(data: str, count: int) -> float:
    """Leaves per second: request read, checked, signed, and in the inventory; 50 in a transaction."""
    async with registry(load(data_dir=data)) as database:
        request = pki.read_csr((Path(data) / "device.csr").read_bytes())
        started = time.perf_counter()
        for _ in range(0, count, 50):
            async with database.begin() as tx:
                authority = await ca.default(tx)
                for _ in range(50):
                    await certify.issue_from_csr(tx, authority, request, now=datetime.now(UTC), days=30)
        return count / (time.perf_counter() - started)


def bare(port: "multiprocessing.Queue[int]", data: str) -> None:
    """The least that a TLS server can do."""
    pin(0)

    async def serve() -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_cert_chain(f"{data}/tls/server.pem")
        context.load_verify_locations(f"{data}/ca.pem")
        context.options |= ssl.OP_NO_TICKET
        context.num_tickets = 0
        server = await asyncio.get_running_loop().create_server(
            asyncio.Protocol, "127.0.0.1", 0, ssl=context, backlog=4096
        )
        port.put(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    uvloop.run(serve())


async def shake(port: int, data: str, count: int, at_a_time: int = 16) -> float:
    """Full handshakes per second."""
    left = iter(range(count))
    context = ssl.create_default_context(cafile=f"{data}/ca.pem")  # asyncio resumes no sessions
    context.load_cert_chain(f"{data}/device.pem", f"{data}/device.key")
    context.check_hostname = False
    context.maximum_version = ssl.TLSVersion.TLSv1_2  # its client knows when the server has done its part, too

    async def client() -> None:
        for _ in left:
            _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
            writer.transport.abort()

    started = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(at_a_time)))
    return count / (time.perf_counter() - started)


def processor(server: psutil.Process) -> float:
    """Seconds of processor time so far, once the server has come to rest."""
    while True:
        before = server.cpu_times()
        time.sleep(0.1)
        after = server.cpu_times()
        if after.user + after.system - before.user - before.system < RESTING:
            return float(after.user + after.system)


def measure(server: psutil.Process, port: int, data: str, count: int) -> Round:
    before = processor(server)
    rate = uvloop.run(shake(port, data, count))
    return Round(rate, (processor(server) - before) / count)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--leaves", type=int, default=2_000)
    parser.add_argument("--handshakes", type=int, default=1_500)
    parser.add_argument("--rounds", type=int, default=5)
    a = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="gh-") as data, service(data) as (environment, ports):

        def gatehouse(*arguments: str) -> None:
            command = [*GATEHOUSE, *arguments]
            subprocess.run(command, cwd=ROOT, env=environment, check=True, stdout=subprocess.DEVNULL)

        gatehouse("product", "set", "demopump", "--certificate-login")
        gatehouse(
            "cert", "issue", "demopump", "pump-001", "--key-out", f"{data}/device.key", "--out", f"{data}/device.pem"
        )
        gatehouse("ca", "export", "gatehouse", f"{data}/ca.pem")
        request = ["openssl", "req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj",
                   "/CN=bench", "-keyout", f"{data}/bench.key", "-out", f"{data}/device.csr"]  # fmt: skip
        subprocess.run(request, check=True, stderr=subprocess.DEVNULL)
        pin(1)
        queue: multiprocessing.Queue[int] = multiprocessing.Queue()
        peer = multiprocessing.Process(target=bare, args=(queue, data), daemon=True)
        peer.start()
        bare_port = queue.get(timeout=20)
        service_process = next(each for each in psutil.Process().children() if "serve" in each.cmdline())
        pin(0, service_process.pid)
        ours: list[Round] = []
        theirs: list[Round] = []
        for number in range(a.rounds):
            turn = [(ours, service_process, ports["mqtts"]), (theirs, psutil.Process(peer.pid), bare_port)]
            for rounds, server, port in turn if number % 2 else reversed(turn):
                rounds.append(measure(server, port, data, a.handshakes))
                rate, processor_time = rounds[-1]
                name = "gatehouse" if rounds is ours else "bare"
                print(f"round {number + 1}: {name:9} {rate:.0f}/s, {processor_time * 1e6:.0f} us", file=sys.stderr)
        peer.terminate()
        leaves = uvloop.run(issue(data, a.leaves))
    rate, bare_rate = (statistics.median(each.rate for each in rounds) for rounds in (ours, theirs))
    cost, bare_cost = (statistics.median(each.processor for each in rounds) for rounds in (ours, theirs))
    result = {
        "leaves_per_s": round(leaves),
        "handshake_us": round(cost * 1e6),
        "bare_handshake_us": round(bare_cost * 1e6),
        "cpu_ratio": round(statistics.median(b.processor / o.processor for o, b in zip(ours, theirs, strict=True)), 2),
        "handshakes_per_s": round(rate),
        "bare_handshakes_per_s": round(bare_rate),
        "rate_ratio": round(rate / bare_rate, 2),
    }
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
