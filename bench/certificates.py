"""Measure certificates: leaves issued per second, and full mutual-TLS handshakes per second beside a bare server.

usage: certificates.py [--leaves N] [--handshakes N] [--rounds N]

Server and client are pinned to a core each where there are two. The bare server does the same handshake with the same
certificates and nothing else, on the same event loop; rounds alternate, the ratio is that of the medians.
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

import uvloop

sys.path.insert(0, str(Path(__file__).resolve().parent))
from run import GATEHOUSE, ROOT, service

from provisioning.core import certify, pki
from provisioning.opening import registry
from provisioning.settings import load


def pin(cpu: int) -> None:
    if (os.cpu_count() or 1) > 1 and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {cpu})


async def issue(data: str, count: int) -> float:
    """Leaves per second: request read, checked, signed, and in the inventory; 50 in a transaction."""
    async with registry(load(data_dir=data)) as database:
        request = pki.read_csr((Path(data) / "device.csr").read_bytes())
        started = time.perf_counter()
        for _ in range(0, count, 50):
            async with database.begin() as tx:
                authority = await certify.default_authority(tx)
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
        ours, theirs = [], []
        for number in range(a.rounds):
            turn = [(ours, ports["mqtts"]), (theirs, bare_port)]
            for rates, port in turn if number % 2 else reversed(turn):
                rates.append(uvloop.run(shake(port, data, a.handshakes)))
                print(
                    f"round {number + 1}: {rates[-1]:.0f}/s {'gatehouse' if rates is ours else 'bare'}", file=sys.stderr
                )
        peer.terminate()
        leaves = uvloop.run(issue(data, a.leaves))
    result = {
        "leaves_per_s": round(leaves),
        "handshakes_per_s": round(statistics.median(ours)),
        "bare_handshakes_per_s": round(statistics.median(theirs)),
        "ratio": round(statistics.median(ours) / statistics.median(theirs), 2),
    }
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
