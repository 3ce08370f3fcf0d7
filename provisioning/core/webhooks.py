"""Webhooks: where events may be sent, how they are signed, and when a delivery is tried again."""

import re
from datetime import datetime, timedelta
from hashlib import sha256
from hmac import new as new_hmac
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final

from provisioning.model.refusal import Reason, Refusal
from provisioning.store import webhooks
from provisioning.store.database import Tx

MOST: Final = 100
"""Webhooks of an account: a URL counts once for each kind of event."""
LONGEST_URL: Final = 2_048
LONGEST_TOKEN: Final = 4_096
RETRIES: Final = (
    timedelta(minutes=1), timedelta(minutes=5), timedelta(minutes=30), timedelta(hours=2), timedelta(hours=12),
)  # fmt: skip
"""From one attempt that failed to the next; after the last comes none."""

URL_PATTERN: Final = (
    r"^[Hh][Tt][Tt][Pp][Ss]://(\[[0-9A-Fa-f:.]{2,45}\]|[0-9A-Za-z_-]{1,63}(\.[0-9A-Za-z_-]{1,63})*\.?)"
    r"(:[0-9]{1,5})?([/?][!$%&'()*+,./0-9:;=?@A-Z\[\]_a-z~-]*)?\Z"
)
"""RFC 3986, but for user names, which would be a second authorisation, and fragments, which are not sent."""
URL: Final = re.compile(URL_PATTERN)
TOKEN_PATTERN: Final = r"^[!-~]([ -~]*[!-~])?\Z"  # noqa: S105 - no secret
"""What a header can carry as it is (RFC 9110, 5.5): visible ASCII characters, and blanks between them."""

# What IANA's registries of special-purpose addresses (RFC 6890) leave to the Internet. An IPv4 address inside of an
# IPv6 address (mapped, NAT64, 6to4, Teredo) is none of it, whatever it is.
NOT_PUBLIC: Final = tuple(map(ip_network, (
    "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24",
    "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24",
    "224.0.0.0/3", "2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20",
)))  # fmt: skip
PUBLIC_IPV6: Final = IPv6Network("2000::/3")


def is_public(address: str) -> bool:
    """May anybody on the Internet have this IP address? Not private, local, shared, multicast or reserved."""
    try:
        found = ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if isinstance(found, IPv6Address) and found not in PUBLIC_IPV6:
        return False
    return not any(found in network for network in NOT_PUBLIC if network.version == found.version)


def host_of(url: str) -> str:
    """The host that a URL names, without its port.

    Raises:
        ValueError: it is no absolute https URL of the characters that such a URL has.
    """
    found = URL.match(url)
    if found is None or len(url) > LONGEST_URL:
        raise ValueError("must be an https URL")
    if found[3] and not 0 < int(found[3][1:]) <= 65_535:  # noqa: PLR2004 - of TCP
        raise ValueError("has no such port")
    host = found[1]
    if host.startswith("["):
        IPv6Address(host[1:-1])
        return host[1:-1]
    name = host.removesuffix(".")
    if _looks_numeric(name):
        IPv4Address(name)
    if len(name) > 253:  # noqa: PLR2004 - RFC 1035, 2.3.4
        raise ValueError("has no such host")
    return name


def _looks_numeric(name: str) -> bool:
    """Would a resolver take it for an address? The system's reads 127.1, 0x7f000001 and 2130706433, too."""
    last = name.rpartition(".")[2].lower()
    return last.isdecimal() or bool(re.fullmatch(r"0x[0-9a-f]*", last))


def is_allowed(url: str, *, private: bool) -> bool:
    """May a webhook have this URL? `private`: hosts that are not public, too.

    What a name stands for is looked at when something is sent there.
    """
    try:
        host = host_of(url)
    except ValueError:
        return False
    if private:
        return True
    if ":" in host or _looks_numeric(host):
        return is_public(host)
    return host.lower() != "localhost" and not host.lower().endswith(".localhost")


def sign(body: bytes, token: str) -> str:
    """HMAC-SHA-256 under the webhook's token (UTF-8), as the header has it."""
    return "sha256=" + new_hmac(token.encode(), body, sha256).hexdigest()


def next_attempt(over: int, now: datetime) -> datetime | None:
    """When a delivery is due again that has failed so often, the last time now. None: it is given up."""
    return now + RETRIES[over - 1] if over <= len(RETRIES) else None


async def create(tx: Tx, account_id: int, url: str, kind: str, token: str, *, now: datetime) -> None:
    """Tell events of this kind to the URL from now on.

    Raises:
        Refusal: LIMIT_REACHED; DUPLICATE from the transaction.
    """
    await webhooks.exclude(tx, account_id)
    if await webhooks.count(tx, account_id) >= MOST:
        raise Refusal(Reason.LIMIT_REACHED, most=MOST)
    await webhooks.add(tx, account_id, url, kind, token=token, now=now)


async def update(tx: Tx, account_id: int, url: str, token: str) -> None:
    """Another token, for all kinds of events; the next attempt has it. Raises: Refusal UNKNOWN."""
    await webhooks.exclude(tx, account_id)
    if not await webhooks.set_token(tx, account_id, url, token):
        raise Refusal(Reason.UNKNOWN)


async def delete(tx: Tx, account_id: int, url: str) -> None:
    """Tell the URL nothing more; what waits for it goes, too. Raises: Refusal UNKNOWN."""
    await webhooks.exclude(tx, account_id)
    if not await webhooks.remove(tx, account_id, url):
        raise Refusal(Reason.UNKNOWN)
