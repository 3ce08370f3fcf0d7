"""An account that has one of everything, brought about through the API and by devices that call."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from provisioning.app import Running
from tests.ublox import Client, make_account, make_devices, make_profile, sign
from tests.ublox_requests import REQUESTS, Things


async def furnish(running: Running, api: Client, things: Things) -> Things:
    """Make the account of `things` and all that they name; `api` is then its client.

    The device `uid` is activated, has a certificate of `ca`, and repeats itself as clones do; `fresh` has bootstrapped
    alone, with the serial number of the other.
    """
    database = running.database
    account = await make_account(database, things.key, things.secret)
    await make_profile(database, account, things.profile, name=things.profile_name)
    await make_devices(database, account, [things.uid, things.fresh])
    await api.authenticate(things.key, things.secret)
    await api.ok("/ztp/rootca/create", REQUESTS["/ztp/rootca/create"](things))
    await api.ok("/ztp/rootca/create", REQUESTS["/ztp/rootca/create"](things) | {"CAName": things.other_ca})
    await api.ok("/notification/webhook/create", REQUESTS["/notification/webhook/create"](things))
    await api.ok("/device/whitelist/add", REQUESTS["/device/whitelist/add"](things))
    await api.ok(
        "/deviceprofile/bootstrapprovisioning/set", REQUESTS["/deviceprofile/bootstrapprovisioning/set"](things)
    )
    await api.ok("/tag/create", {"TagName": things.tag})
    for selector in ({"ROTPublicUIDs": [things.uid]}, {"DeviceProfileUIDs": [things.profile]}):
        await api.ok("/tag/assign", {"TagNames": [things.tag]} | selector)
    sealed = {"DeviceProfileUID": things.profile, "DeviceSerialNumber": things.device_serial}
    await bootstrap(running, api, things.uid, **sealed, IMEI=things.imei)
    await bootstrap(running, api, things.fresh, **sealed)
    for counter, status in ((1, 200), (2, 200), (2, 400)):
        await heartbeat(api, things.uid, counter, status)
    await api.ok("/e2e/uplink/symmetrickey/get", REQUESTS["/e2e/uplink/symmetrickey/get"](things))
    info = await api.ok("/device/info/get", {"ROTPublicUIDs": [things.uid], "Options": ["ZTP"]})
    serial = info["DeviceInfo"][0]["ZTP"]["CertificateSerialNumber"]
    assert api.refresh_token is not None
    return replace(things, serial=serial, refresh_token=api.refresh_token, now=running.world.clock())


async def bootstrap(running: Running, api: Client, uid: str, **sealed: str) -> None:
    at = running.world.clock().strftime("%Y-%m-%dT%H:%M:%SZ")
    body = {"ROTPublicUID": uid, "Timestamp": at, "Nonce": f"n-{uid}", "TypeNumber": "SARA-R410M-03B-00"} | sealed
    await _call(api, "/device/v1/bootstrap", sign(body, uid), 200)


async def heartbeat(api: Client, uid: str, counter: int, status: int = 200) -> None:
    body = {"ROTPublicUID": uid, "Counter": counter, "Applied": []}
    await _call(api, "/device/v1/heartbeat", sign(body, uid), status)


async def _call(api: Client, path: str, body: Mapping[str, Any], status: int) -> None:
    answer = await api.post(path, body, version="")
    assert answer.status == status, f"{path}: {answer}"
