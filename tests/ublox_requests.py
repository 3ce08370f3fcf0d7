"""A good request for every operation of u-blox, about the things of one account."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from tests.ublox import KEY, OTHER_KEY, PROFILE, SECRET

Body = dict[str, Any]
Values = tuple[Any, ...]


@dataclass(frozen=True)
class Things:
    """What belongs to one account, by the names that requests have for it."""

    key: str
    secret: str = field(repr=False)
    uid: str
    """Has all there is to have: profile, tag, certificate."""
    fresh: str
    """Another device, without a certificate."""
    profile: str
    profile_name: str
    tag: str
    ca: str
    other_ca: str
    url: str
    imei: str
    device_serial: str
    serial: str = "73068c914de40ccaee84e03a66b4858"
    """Of its certificate, as soon as it has one."""
    refresh_token: str = field(default="none", repr=False)
    now: datetime = field(default_factory=lambda: datetime.now(UTC).replace(microsecond=0))

    @property
    def header(self) -> str:
        """Of a message of the device, version 1."""
        return f"1101{self.uid[4:]}621f7593c47f0000"

    @property
    def key_id(self) -> str:
        return f"1101{self.uid[4:]}443f8c16c7ec"

    def day(self, ago: int) -> str:
        return (self.now - timedelta(days=ago)).strftime("%Y-%m-%d")

    def time(self, ago: int) -> str:
        return (self.now - timedelta(days=ago)).strftime("%Y-%m-%dT%H:%M:%SZ")


MINE = Things(
    key=KEY, secret=SECRET, uid="0002000089280087", fresh="0002000089280088", profile=PROFILE,
    profile_name="meters-eu", tag="downtown", ca="example.com", other_ca="other.example.com",
    url="https://127.0.0.1:1/mine", imei="862618583984360", device_serial="123234354",
)  # fmt: skip
THEIRS = Things(
    key=OTHER_KEY, secret="AnotherSecretOf32Characters00000", uid="0002000189290087", fresh="0002000189290088",
    profile="QHlN732VgUWCdfNeXHkQR1", profile_name="pumps-us", tag="uptown", ca="theirs.example.com",
    other_ca="theirs-too.example.com", url="https://127.0.0.1:1/theirs", imei="862618583984378",
    device_serial="987654321",
)  # fmt: skip
NOBODYS = Things(
    key="7a3e5b1c-0000-4000-8000-00000000dead", secret="ThisSecretOf32CharactersIsWrong0", uid="0002000289300087",
    fresh="0002000289300088", profile="AyvylmHVdUiHQzUaCjOmCA", profile_name="ghosts", tag="nowhere",
    ca="nobodys.example.com", other_ca="nobodys-too.example.com", url="https://127.0.0.1:1/nobodys",
    imei="862618583984386", device_serial="555555555", serial="5d1f4a9be0c27763f1a8d04e95c3b620",
)  # fmt: skip

PROVISIONING = {
    "Authorizations": [{"Name": "LocalDPR", "State": "ENABLED"}, {"Name": "ZTPV1", "State": "ENABLED"}],
    "NetworkParameters": [{"Name": "SecurityHeartbeatInSec", "Value": 86_400}],
}


def provisioning(ca: str) -> Body:
    return PROVISIONING | {"Zerotouch": {"CAName": ca}}


REQUESTS: Mapping[str, Callable[[Things], Body]] = {
    "/authenticate": lambda of: {"APIKey": of.key, "APISecret": of.secret},
    "/refreshauthtoken": lambda of: {"APIKey": of.key, "RefreshToken": of.refresh_token},
    "/deviceprofile/get": lambda of: {"TagNames": [of.tag], "PageNumber": 1},
    "/deviceprofile/bootstrapprovisioning/set": lambda of: {
        "DeviceProfileUID": of.profile, "Provisioning": provisioning(of.ca),
    },
    "/deviceprofile/bootstrapprovisioning/get": lambda of: {"DeviceProfileUID": of.profile},
    "/deviceprofile/bootstrapprovisioning/delete": lambda of: {"DeviceProfileUID": of.profile},
    "/device/list/get": lambda _: {"Filter": "ALL", "PageNumber": 1},
    "/device/whitelist/add": lambda of: {"ROTPublicUIDs": [of.uid], "IMEIs": [of.imei], "Action": "ADD"},
    "/device/whitelist/get": lambda _: {"PageNumber": 1},
    "/device/provisioning/set": lambda of: {"ROTPublicUIDs": [of.uid], "Provisioning": provisioning(of.ca)},
    "/device/provisioning/get": lambda of: {"ROTPublicUIDs": [of.uid]},
    "/device/provisioning/delete": lambda of: {"ROTPublicUIDs": [of.uid]},
    "/e2e/key/rotate": lambda of: {"ROTPublicUIDs": [of.uid], "Type": "AUTOMATIC", "Days": 1},
    "/e2e/uplink/symmetrickey/get": lambda of: {"KeyID": of.key_id, "KeyLength": 128},
    "/e2e/uplink/protectionparameters/get": lambda of: {"EncryptedHeader": of.header},
    "/e2e/uplink/integrityparameters/get": lambda of: {"EncryptedHeader": of.header},
    "/e2e/downlink/protectionparameters/get": lambda of: {"ROTPublicUID": of.uid},
    "/e2e/downlink/integrityparameters/get": lambda of: {"ROTPublicUID": of.uid},
    "/device/info/get": lambda of: {"ROTPublicUIDs": [of.uid], "Options": ["CORE", "PROVISIONING", "ZTP"]},
    "/notification/get": lambda of: {
        "FromDate": of.time(30), "ToDate": of.time(-1), "ROTPublicUIDs": [of.uid],
        "NotificationType": "DEVICE_INFO_CHANGE", "PageNumber": 1,
    },
    "/device/clone/get": lambda of: {
        "FromDate": of.time(30), "ToDate": of.time(-1), "ROTPublicUIDs": [of.uid], "PageNumber": 1,
    },
    "/device/suspicious/get": lambda of: {"ROTPublicUIDs": [of.uid], "PageNumber": 1},
    "/device/activity/get": lambda of: {
        "FromDate": of.time(30), "ToDate": of.time(-1), "ROTPublicUID": of.uid, "PageNumber": 1,
    },
    "/device/usage/get": lambda of: {"FromDate": of.day(30), "ToDate": of.day(0), "ROTPublicUIDs": [of.uid]},
    "/device/rotpublicuid/get": lambda of: {"DeviceProfileUID": of.profile, "PageNumber": 1},
    "/apiversion": lambda _: {},
    "/ztp/rootca/create": lambda of: {
        "CAName": of.ca, "CACertificateValidity": 3650, "DeviceCertificateValidity": 365, "RenewBeforeExpiration": 30,
    },
    "/ztp/rootca/update": lambda of: {"CAName": of.ca, "RenewBeforeExpiration": 60},
    "/ztp/rootca/get": lambda of: {"CAName": of.ca, "PageNumber": 1},
    "/ztp/rootca/crl/get": lambda of: {"CANames": [of.ca]},
    "/ztp/rootca/device/get": lambda of: {"CAName": of.ca, "PageNumber": 1},
    "/ztp/rootca/popcertificate/generate": lambda of: {"CAName": of.ca, "RegistrationCode": "7d3f1c"},
    "/ztp/rootca/delete": lambda of: {"CAName": of.ca},
    "/ztp/devicecertificate/renew": lambda of: {
        "CAName": of.ca, "DeviceCertificateValidity": 90, "ROTPublicUIDs": [of.uid],
    },
    "/ztp/devicecertificate/update": lambda of: {"CAName": of.ca, "ROTPublicUIDs": [of.uid]},
    "/ztp/devicecertificate/delete": lambda of: {"ROTPublicUIDs": [of.uid]},
    "/ztp/devicecertificate/revoke": lambda of: {"CAName": of.ca, "ROTPublicUID": of.uid},
    "/ztp/devicecertificate/rootca/transfer": lambda of: {
        "FromCA": of.ca, "ToCA": of.other_ca, "ROTPublicUIDs": [of.uid],
    },
    "/notification/webhook/create": lambda of: {
        "NotificationURL": of.url, "AuthorizationToken": "Bearer eiuytreuihkjf", "NotificationType":
        "DEVICE_BOOTSTRAP_EVENT",
    },
    "/notification/webhook/update": lambda of: {
        "NotificationURL": of.url, "AuthorizationToken": "Bearer another",
    },
    "/notification/webhook/delete": lambda of: {"NotificationURL": of.url},
    "/notification/webhook/get": lambda _: {},
    "/tag/create": lambda of: {"TagName": of.tag},
    "/tag/delete": lambda of: {"TagName": of.tag},
    "/tag/get": lambda _: {"PageNumber": 1},
    "/tag/assign": lambda of: {"TagNames": [of.tag], "ROTPublicUIDs": [of.uid], "SyncRequired": True},
    "/tag/remove": lambda of: {"TagNames": [of.tag], "ROTPublicUIDs": [of.uid], "SyncRequired": True},
}  # fmt: skip

INSTEAD: Mapping[str, Callable[[Things], Any]] = {
    "ROTPublicUIDs": lambda of: [of.uid],
    "TagNames": lambda of: [of.tag],
    "DeviceProfileUID": lambda of: of.profile,
    "DeviceProfileUIDs": lambda of: [of.profile],
    "DeviceSerialNumbers": lambda of: [of.device_serial],
    "ProfileName": lambda of: of.profile_name,
    "ROTPublicUID": lambda of: of.uid,
    "SerialNumber": lambda of: of.serial,
    "SerialNumbers": lambda of: [of.serial],
}
"""A good value of every field that may exclude others: of which requests have one for another."""

NO_TEXT: Values = (1, 1.5, True, {}, ["x"])
NO_NUMBER: Values = ("1", 1.5, True, {}, [1])
NO_TIME: Values = (
    1, True, {}, ["2020-02-01"], "yesterday", "2020-02-30", "2020-13-01", "0001-01-01T00:00:00+23:59",
    "9999-12-31T23:59:59-23:59", "2020-02-01T00:00:00Zulu", "10000-01-01", "9" * 5_000,
)  # fmt: skip
NO_UID: Values = (-1, 1.5, True, {}, [1], 10**16, "1" * 17, "g" * 16, "0x12", " 1", "1\n", "１", "-1", "+1", "1_0")  # noqa: RUF001
NO_ENTRY: Values = ({}, [], None, True, 1.5)
NO_LIST: Values = ("x", 1, True, {"0": "x"}, *([each] for each in NO_ENTRY))
WRONG: Mapping[str, Values] = {
    "text": NO_TEXT,
    "choice": (*NO_TEXT, "OTHER", "add", "A" * 5_000),
    "number": NO_NUMBER,
    "page": (*NO_NUMBER, 0, -1, -(10**30), 0.5),
    "flag": (0, 1, "true", {}, []),
    "object": (1, "x", True, [{}]),
    "time": NO_TIME,
    "day": (*NO_TIME, "2020-1-1", "20200101", "2020-W01-1", "2020-02-01T00:00:00Z"),
    "uid": NO_UID,
    "uids": (*NO_LIST, *([each] for each in NO_UID), ["1"] * 1_001),
    "texts": (*NO_LIST, [1], ["x"] * 1_001),
    "choices": (*NO_LIST, [1], ["OTHER"], ["CORE"] * 1_001),
}
"""What a field of a kind never is."""
KINDS: Mapping[str, str] = {
    **dict.fromkeys(
        ("APIKey", "APISecret", "AuthorizationToken", "CAName", "DeviceProfileUID", "EncryptedHeader", "FromCA",
         "KeyID", "NotificationURL", "ProfileName", "RefreshToken", "RegistrationCode", "SerialNumber", "TagName",
         "ToCA"), "text",
    ),
    **dict.fromkeys(("Action", "Filter", "NotificationType", "Type"), "choice"),
    **dict.fromkeys(
        ("CACertificateValidity", "Days", "DeviceCertificateValidity", "KeyLength", "RenewBeforeExpiration"), "number"
    ),
    "PageNumber": "page",
    "SyncRequired": "flag",
    "Provisioning": "object",
    "ROTPublicUID": "uid",
    "ROTPublicUIDs": "uids",
    **dict.fromkeys(
        ("CANames", "DeviceProfileUIDs", "DeviceSerialNumbers", "IMEIs", "SerialNumbers", "TagNames"), "texts"
    ),
    "Options": "choices",
}  # fmt: skip
"""Field -> kind; dates are `day` in one operation and `time` in all others."""
DAYS = frozenset({"/device/usage/get"})


def kind_of(path: str, name: str) -> str:
    if name in {"FromDate", "ToDate"}:
        return "day" if path in DAYS else "time"
    return KINDS[name]
