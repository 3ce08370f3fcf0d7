"""TLS before MQTT: a handshake counts among the listener's connections, and has the time of a CONNECT.

The certificate is read from the connection afterwards: it is the one that this peer has proven, in this handshake or in
the TLS session that it resumes.
"""

import socket
import ssl
from typing import TYPE_CHECKING

from provisioning import handshake
from provisioning.handshake import Terms

if TYPE_CHECKING:
    from broker.listener import Listener


async def accept(listener: "Listener", context: ssl.SSLContext, bound: socket.socket) -> None:
    """Take connections on `bound`, a listening socket, for `listener`, until cancelled."""
    terms = Terms(
        context=context, timeout=listener.limits.connect_timeout, begin=lambda _: listener.begin(),
        enter=lambda each: not listener.enter(each, each.peer.address),
        leave=lambda each: listener.leave(each, each.peer.address), refused="mqtt.login", overload="mqtt.overload",
    )  # fmt: skip
    await handshake.accept(bound, terms)
