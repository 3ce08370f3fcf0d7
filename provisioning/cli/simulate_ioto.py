# ruff: noqa: PLC0415 - heavy modules are imported by the command that needs them: --help stays quick
"""`gatehouse simulate ioto`: agents that live from registration to the first check for an update, over the wire.

register   nobody has claimed the device: exactly one node
claim      as an administrator does it, in the registry
register   the token
get_certs  a certificate and its key, for the device and for us
checkin    an update, or none
"""

import secrets
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from provisioning.cli import output
from provisioning.cli.options import Json, product_key
from provisioning.cli.run import FAILED, Desk, Failure, on_registry, raise_file_limit
from provisioning.cli.simulate import http_url, print_report

if TYPE_CHECKING:
    import aiohttp

    from provisioning.cli.simulation import Report

PROTOCOL: Final = "ioto"
STEPS: Final = ("register", "token", "get_certs", "checkin")
SUCCESS: Final = 200
QUOTED: Final = 200


def ioto(
    *,
    product: Annotated[str, typer.Option(help="Product of the devices: its token or its key.")],
    count: Annotated[int, typer.Option(min=1, help="How many devices.")] = 10,
    concurrency: Annotated[int, typer.Option(min=1, max=1_000, help="Devices at the same time.")] = 20,
    host: Annotated[str | None, typer.Option(help="Where the service is; settings know when not given.")] = None,
    http_port: Annotated[int | None, typer.Option(min=1, max=65_535, help="As --host.")] = None,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds for each step of a device.")] = 10.0,
    keep: Annotated[bool, typer.Option("--keep/--no-keep", help="Keep the devices in the registry.")] = False,
    as_json: Json = False,
) -> None:
    """Let Ioto agents register, be claimed, get certificates and look for updates, and check every answer.

    Works on the registry of the service: it claims the devices, named SIM-…, and deletes them at the end. Exit code 1
    on a wrong answer.
    """

    async def work(desk: Desk) -> "Report":
        raise_file_limit()
        token = await _token(desk, product_key(PROTOCOL, product))
        run = f"SIM-{secrets.token_hex(3).upper()}"
        names = [f"{run}-{number:04}" for number in range(count)]
        async with _cleared(desk, names, keep=keep):
            with output.progress("simulate") as bar:
                task = bar.add_task("simulate", total=count, done="")

                def on_done(report: "Report") -> None:
                    done = report.right + report.wrong
                    bar.update(task, completed=done, done=f"{done:,} of {count:,}, {report.wrong} wrong")

                url = http_url(desk.settings, host, http_port)
                return await _play(desk, url, token, names, concurrency=concurrency, timeout=timeout, on_done=on_done)

    report = on_registry(work, PROTOCOL)
    print_report(report, as_json=as_json)
    if report.wrong:
        raise typer.Exit(FAILED)


async def _token(desk: Desk, key: str) -> str:
    from provisioning.store import products

    async with desk.database.read() as tx:
        found = await products.find(tx, PROTOCOL, key)
    if found is None:
        raise Failure(f"there is no such product: `gatehouse product create --protocol {PROTOCOL}` makes one")
    return found.secret


@asynccontextmanager
async def _cleared(desk: Desk, names: list[str], *, keep: bool) -> AsyncIterator[None]:
    """Whatever becomes of the devices, they are deleted in the end."""
    from provisioning.core import registry
    from provisioning.store import claims

    try:
        yield
    finally:
        if not keep:
            async with desk.database.begin() as tx:
                found = await claims.find_all(tx, PROTOCOL, names)
                for device in found.values():
                    await registry.delete_device(tx, device)
            output.note(f"deleted {output.counted(len(found), 'simulated device')}")


async def _play(
    desk: Desk,
    url: str,
    token: str,
    names: list[str],
    *,
    concurrency: int,
    timeout: float,  # noqa: ASYNC109 - of each step, not of this call
    on_done: "Callable[[Report], None]",
) -> "Report":
    """Each device lives through all steps, or to the first wrong answer."""
    import asyncio

    import aiohttp

    from provisioning.cli.simulation import TOLD, Report, UnreachableError, WrongAnswerError

    report = Report(steps={step: [] for step in STEPS})
    free = asyncio.Semaphore(concurrency)
    started = asyncio.get_running_loop().time()
    connector = aiohttp.TCPConnector(limit=concurrency)
    async with aiohttp.ClientSession(url, connector=connector) as http, asyncio.TaskGroup() as tasks:

        async def live(name: str) -> None:
            try:
                await _Agent(desk, http, report, name, timeout).live(token)
                report.right += 1
            except WrongAnswerError as error:
                report.wrong += 1
                told = str(error) if isinstance(error, UnreachableError) else f"{name}: {error}"
                if len(report.errors) < TOLD and told not in report.errors:
                    report.errors.append(told)
            finally:
                free.release()
            on_done(report)

        for name in names:
            await free.acquire()
            if report.is_hopeless:
                report.errors.append(f"stopped after {report.wrong} wrong answers and no right one")
                break
            tasks.create_task(live(name))
    report.seconds = asyncio.get_running_loop().time() - started
    return report


class _Agent:
    """One device."""

    def __init__(
        self, desk: Desk, http: "aiohttp.ClientSession", report: "Report", name: str, seconds: float
    ) -> None:  # fmt: skip
        self._desk = desk
        self._http = http
        self._report = report
        self._name = name
        self._seconds = seconds

    async def live(self, product_token: str) -> None:
        """Raises: WrongAnswerError."""
        from provisioning.cli.simulation import WrongAnswerError

        body = {"id": self._name, "product": product_token, "name": "Simulated", "model": "sim"}
        path = "/api/device/register"
        if (answer := await self._post("register", path, body, product_token)) != {"registered": True}:
            raise WrongAnswerError(f"register: the answer is {str(sorted(answer))[:QUOTED]}")
        await self._claim()
        token = (await self._post("token", path, body, product_token)).get("token")
        if not isinstance(token, str):
            raise WrongAnswerError("token: a claimed device got none")
        self._check(await self._post("get_certs", "/tok/provision/getCerts", {"id": self._name}, token))
        answer = await self._post("checkin", "/tok/provision/update", {"id": self._name, "version": "0.0.1"}, token)
        if not ({"checksum", "version", "url", "update"} <= answer.keys() or answer.keys() == {"message"}):
            raise WrongAnswerError(f"checkin: the answer has {', '.join(answer)}"[:QUOTED])

    async def _claim(self) -> None:
        from provisioning.core import claims
        from provisioning.protocols.ioto.http import claim_of

        async with self._desk.database.begin() as tx:
            device = await claims.device(tx, PROTOCOL, self._name)
            await claims.claim(tx, device, claim_of(self._desk.settings.ioto, "", ""))

    async def _post(self, step: str, path: str, body: Mapping[str, object], token: str) -> dict[str, Any]:
        import asyncio

        import aiohttp

        from provisioning.cli.simulation import UnreachableError, WrongAnswerError

        headers = {"Authorization": f"bearer {token}"}
        try:
            with self._report.timed(step):
                async with (
                    asyncio.timeout(self._seconds),
                    self._http.post(path, json=body, headers=headers) as response,
                ):
                    if response.status != SUCCESS:
                        raise WrongAnswerError(f"{step}: HTTP {response.status}: {(await response.text())[:QUOTED]}")
                    answer = await response.json(content_type=None)
        except TimeoutError:
            raise WrongAnswerError(f"{step}: no answer within {self._seconds:g} s") from None
        except aiohttp.ClientConnectorError as error:
            raise UnreachableError(error.host, error.port or 80) from error
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise WrongAnswerError(f"{step}: {type(error).__name__}: {str(error)[:QUOTED]}") from error
        if not isinstance(answer, dict):
            raise WrongAnswerError(f"{step}: no JSON object")
        return answer

    def _check(self, answer: dict[str, Any]) -> None:
        """Raises: WrongAnswerError, when an agent could not connect with this."""
        from cryptography import x509
        from cryptography.hazmat.primitives.serialization import Encoding

        from provisioning.cli.simulation import WrongAnswerError
        from provisioning.core import pki
        from provisioning.model.refusal import Refusal
        from provisioning.protocols.ioto import mqtt, wire

        try:
            leaf = x509.load_pem_x509_certificate(str(answer.get("certificate")).encode())
            key = pki.read_key(str(answer.get("key")), ours=True)
        except (Refusal, ValueError) as error:
            raise WrongAnswerError(f"get_certs: certificate or key cannot be read: {error}"[:QUOTED]) from error
        named = mqtt.read_certificate(leaf.public_bytes(Encoding.DER))
        wrong = {
            "the key is not that of the certificate": key.public_key() != leaf.public_key(),
            "the certificate is another device's": named is None or named[1] != self._name,
            "the endpoint is no DNS name": not wire.is_dns_name(str(answer.get("endpoint"))),
            "there is no port": not isinstance(answer.get("port"), int),
        }
        if said := next((said for said, holds in wrong.items() if holds), None):
            raise WrongAnswerError(f"get_certs: {said}")
