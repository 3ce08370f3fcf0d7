"""What operations, fields and answers are called and mean: the words of the OpenAPI document."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from provisioning.protocols.ublox.call import Guard

ABOUT: Final = """\
The operations that an application calls to manage its devices. All of them take and give JSON.

- Every operation stands below `/v1` and at the bare path.
- `/authenticate` gives an AuthToken; all others want it in the header `Authorization`, behind `Bearer` or bare.
- A ROTPublicUID is 16 hex digits. In requests it may be a number too, and leading zeros may be left out.
- Of fields that exclude each other exactly one may be stated. Fields that no operation knows are ignored.
- Lists come in pages of 100. A page past the end is empty.
- Dates and times are ISO 8601; replies have them in UTC.
- What belongs to another account is answered like what does not exist.
"""

TOPICS: Final[Mapping[str, Mapping[str, str]]] = MappingProxyType({
    "Authentication": {
        "/authenticate": "Get tokens for a key and its secret",
        "/refreshauthtoken": "Get another AuthToken for a RefreshToken",
    },
    "Device profile": {
        "/deviceprofile/get": "List device profiles",
        "/deviceprofile/bootstrapprovisioning/set": "Say what devices of a profile get when they bootstrap",
        "/deviceprofile/bootstrapprovisioning/get": "Look up what devices of a profile get when they bootstrap",
        "/deviceprofile/bootstrapprovisioning/delete": "Let devices of a profile bootstrap without provisioning",
    },
    "Device": {
        "/device/list/get": "List devices",
        "/device/whitelist/add": "Put devices on the whitelist, or take them off",
        "/device/whitelist/get": "List the whitelist",
        "/device/provisioning/set": "Say what devices get at their next heartbeats",
        "/device/provisioning/get": "Look up what devices are to get",
        "/device/provisioning/delete": "Let devices get nothing more",
    },
    "End-to-end services": {
        "/e2e/key/rotate": "Say how often the keys of devices change",
        "/e2e/uplink/symmetrickey/get": "Get the key that a KeyID of a device stands for",
        "/e2e/uplink/protectionparameters/get": "Get what decrypts a message of a device",
        "/e2e/uplink/integrityparameters/get": "Get what verifies a message of a device",
        "/e2e/downlink/protectionparameters/get": "Get what encrypts a message to a device",
        "/e2e/downlink/integrityparameters/get": "Get what signs a message to a device",
    },
    "Information": {
        "/device/info/get": "Look up all about devices",
        "/notification/get": "List notifications of devices",
        "/device/clone/get": "List signs that devices were cloned",
        "/device/suspicious/get": "List devices that share what should be unique",
        "/device/activity/get": "List what a device has done",
        "/device/usage/get": "Sum up which services devices have used",
        "/device/rotpublicuid/get": "List the devices of a profile or with tags",
        "/apiversion": "Look up the version of this API",
    },
    "Root CA": {
        "/ztp/rootca/create": "Create a root CA",
        "/ztp/rootca/update": "Change when certificates of a root CA are renewed",
        "/ztp/rootca/get": "List root CAs",
        "/ztp/rootca/crl/get": "Get the certificate revocation lists of root CAs",
        "/ztp/rootca/device/get": "List devices that have a certificate of a root CA",
        "/ztp/rootca/popcertificate/generate": "Prove to a cloud that a root CA is ours",
        "/ztp/rootca/delete": "Delete a root CA that is not in use",
    },
    "Device certificates": {
        "/ztp/devicecertificate/renew": "Renew certificates at the next heartbeat, with the same keys",
        "/ztp/devicecertificate/update": "Replace certificates and keys within two heartbeats",
        "/ztp/devicecertificate/delete": "Remove certificates from devices at their next heartbeats",
        "/ztp/devicecertificate/revoke": "Revoke a certificate at once",
        "/ztp/devicecertificate/rootca/transfer": "Replace certificates by such of another root CA",
    },
    "Webhooks": {
        "/notification/webhook/create": "Have events of one type posted to a URL",
        "/notification/webhook/update": "Change the token that is sent to a URL",
        "/notification/webhook/delete": "Post nothing more to a URL",
        "/notification/webhook/get": "List webhooks",
    },
    "Tags": {
        "/tag/create": "Create a tag",
        "/tag/delete": "Delete a tag that nothing has",
        "/tag/get": "List tags",
        "/tag/assign": "Give tags to devices or profiles",
        "/tag/remove": "Take tags from devices or profiles",
    },
})  # fmt: skip
"""Topic, path, summary."""
PLACES: Final = {path: (topic, summary) for topic, operations in TOPICS.items() for path, summary in operations.items()}

FIELDS: Final[Mapping[str, str]] = MappingProxyType({
    "APIKey": "Names the account.",
    "APISecret": "Proves who asks. Whoever creates the account has it.",
    "Action": "ADD unless stated.",
    "AuthorizationToken": "Sent with every event as the header `Authorization`, as it stands here.",
    "CACertificateValidity": "Days.",
    "CAName": "Name of a root CA, unique in the installation.",
    "CANames": "Names of root CAs. All of the account unless stated.",
    "Days": "After so many days the key changes, where Type is AUTOMATIC. 7 unless stated.",
    "DeviceCertificateValidity": "Days from installation on; it ends with the root CA at the latest.",
    "DeviceProfileUID": "Names a device profile.",
    "DeviceProfileUIDs": "Device profiles.",
    "DeviceSerialNumbers": "Devices, by the serial numbers that they have sealed.",
    "EncryptedHeader": "The first bytes of a message, in hex: 32 digits for version 1, 24 or 22 for version 2.",
    "Filter": "ALL unless stated.",
    "FromCA": "Name of the root CA whose certificates the devices have.",
    "FromDate": "Nothing before it.",
    "IMEIs": "Devices, by IMEI.",
    "KeyID": "28 hex digits.",
    "KeyLength": "Bits. 256 unless stated.",
    "NotificationType": "Type of notifications or of events.",
    "NotificationURL": "Must be https.",
    "Options": "What is told of each device. All unless stated.",
    "PageNumber": "1 unless stated.",
    "ProfileName": "Only the device profile of this name. Case counts.",
    "Provisioning": "Features, network parameters, and the root CA of certificates.",
    "ROTPublicUID": "Names a device.",
    "ROTPublicUIDs": "Devices, by ROTPublicUID: 1 to 1,000.",
    "RefreshToken": "Good for 3 days.",
    "RegistrationCode": "What the cloud wants to see as the subject of the certificate.",
    "RenewBeforeExpiration": "Renew certificates of devices so many days before they expire. Needs the subscription.",
    "SerialNumber": "Names a certificate.",
    "SerialNumbers": "Certificates, by serial number.",
    "SyncRequired": "Taken, without effect.",
    "TagName": "Case does not count.",
    "TagNames": "Tags, or whatever has one of them: 1 to 1,000.",
    "ToCA": "Name of the root CA whose certificates the devices get.",
    "ToDate": "Nothing after it. Now unless stated.",
    "Type": "CONTINUOUS: the key changes with every call. AUTOMATIC: it changes every so many days.",
})  # fmt: skip
"""What the fields of requests mean, by name."""

EXAMPLES: Final[Mapping[str, object]] = MappingProxyType({
    "APIKey": "0d636af8-d001-49ba-86d3-80f21272c14a",
    "AuthorizationToken": "Bearer eiuytreuihkjfghdlyreuiyt",
    "CACertificateValidity": 3_650,
    "CAName": "example.com",
    "CANames": ["example.com"],
    "DeviceCertificateValidity": 365,
    "DeviceProfileUID": "mbYbAX-CoEqE97TMFBsUKQ",
    "DeviceProfileUIDs": ["mbYbAX-CoEqE97TMFBsUKQ"],
    "DeviceSerialNumbers": ["123234354"],
    "EncryptedHeader": "1101000089282257621f7593c47f0000",
    "FromCA": "example.com",
    "IMEIs": ["862618583984360"],
    "KeyID": "1101000005B52001443F8C16C7EC",
    "NotificationURL": "https://example.com/events",
    "ProfileName": "meters-eu",
    "Provisioning": {
        "Authorizations": [{"Name": "LocalDPR", "State": "ENABLED"}],
        "NetworkParameters": [{"Name": "SecurityHeartbeatInSec", "Value": 86_400}],
        "Zerotouch": {"CAName": "example.com"},
    },
    "ROTPublicUID": "0002000089280087",
    "ROTPublicUIDs": ["0002000089280087"],
    "RenewBeforeExpiration": 30,
    "SerialNumber": "73068c914de40ccaee84e03a66b4858",
    "SerialNumbers": ["73068c914de40ccaee84e03a66b4858"],
    "TagName": "downtown",
    "TagNames": ["downtown"],
    "ToCA": "other.example.com",
})  # fmt: skip
"""Values of fields of requests, by name."""
CSV: Final = "Id,Type,Action\n0002000100003fff,ROTPublicUID,ADD\n"
"""A whitelist as a file."""

GUARDS: Final[Mapping[Guard, str]] = MappingProxyType({
    Guard.SUBSCRIBED: "The account needs the subscription Device Certificate Management.",
})  # fmt: skip
FAILURES: Final[Mapping[int, str]] = MappingProxyType({
    400: "Something is malformed, missing or contradictory, or names a device that the account does not have",
    401: "No good AuthToken, key or secret, or the account lacks the subscription",
    404: "The account has no such thing",
    409: "There is such a thing already",
    413: "The body has more than 1 MiB",
    415: "The body is not what its Content-Type should say",
    429: "The account asks too often",
    500: "The service failed",
})  # fmt: skip
