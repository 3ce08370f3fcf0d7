"""The vendor's own Python SDK over two-way TLS."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from provisioning.app import Running
from provisioning.core import ca, certify, inventory, pki, registry
from provisioning.model.certificate import Certificate
from tests.conftest import load_rows, until
from tests.devices import DEVICE, PRODUCT
from tests.vendor.conftest import Drive

pytestmark = [pytest.mark.vendor, pytest.mark.server]


async def issue(running: Running, directory: Path) -> tuple[Certificate, list[str]]:
    """A certificate for the device, and the files that the SDK wants: authority, certificate, key."""
    async with running.database.begin() as tx:
        device = await registry.device(tx, "enos", "pk1", "dk1")
        authority = await ca.default(tx)
        made = await certify.issue_with_key(
            tx, authority, pki.new_key(), pki.make_subject("dk1"), now=datetime.now(UTC), days=30, device=device
        )
    files = {
        "ca.pem": pki.write_pem(authority.certificate),
        "device.pem": certify.bundle(authority, made.certificate),
        "device.key": made.key,
    }
    for name, text in files.items():
        (directory / name).write_text(text)
    return made.certificate, [str(directory / name) for name in files]


async def test_login_reports_and_revocation(service: Running, drive: Drive, tmp_path: Path) -> None:
    await load_rows(service, PRODUCT | {"certificateLogin": True}, DEVICE)
    certificate, files = await issue(service, tmp_path)
    device = await drive()
    url = f"ssl://127.0.0.1:{service.mqtts.port}"
    await device("static_tls", url=url, product="pk1", device="dk1", secret="ds1", files=files)
    assert await device("wait", kind="on_connect"), await device("seen")
    assert await device("post") == 200
    async with service.database.begin() as tx:
        await inventory.revoke(tx, certificate, now=datetime.now(UTC))
    await until(lambda: len(service.sessions) == 0, "the end of the session", 2)
    assert await device("wait", kind="log", text="bad connection, error code: 5"), await device("seen")


async def test_without_its_certificate_the_password_is_not_enough(service: Running, drive: Drive) -> None:
    await load_rows(service, PRODUCT | {"certificateLogin": True}, DEVICE)
    device = await drive()
    url = f"tcp://127.0.0.1:{service.mqtt.port}"
    await device("static", url=url, product="pk1", device="dk1", secret="ds1")
    assert await device("wait", kind="log", text="bad connection, error code: 5"), await device("seen")
