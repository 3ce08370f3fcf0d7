"""What `/metrics` reads from the running parts at the moment when it is asked."""

from collections.abc import Mapping
from functools import partial
from typing import Protocol

from broker.embedded import EmbeddedBroker
from broker.listener import Listener
from broker.sessions import Sessions
from provisioning.metrics import Metrics
from provisioning.store.credentials import Credentials
from provisioning.store.database import Database
from provisioning.web.site import Site

WAITING = "What waits for the database or for devices."
MESSAGES = "Messages of devices."


class Queue(Protocol):
    @property
    def depth(self) -> int: ...


def watch(
    metrics: Metrics,
    database: Database,
    sessions: Sessions,
    broker: EmbeddedBroker,
    credentials: Credentials,
    *,
    listeners: Mapping[str, Listener],
    sites: Mapping[str, Site],
    queues: Mapping[str, Queue],
) -> None:
    """Name every gauge, and where it is read."""
    gauge, pool, totals = metrics.watch, database.pool, [listener.totals for listener in listeners.values()]
    gauge("sessions", "Devices that are logged in.", lambda: len(sessions))
    for name, listener in listeners.items():
        gauge("connections", "Open connections.", partial(len, listener.connections), listener=name)
    for name, site in sites.items():
        gauge("connections", "Open connections.", partial(getattr, site, "connections"), listener=name)
    gauge("pool_connections", "Connections to the database.", pool.get_size, state="open")
    gauge("pool_connections", "Connections to the database.", pool.get_idle_size, state="idle")
    for name, queue in queues.items():
        gauge("queue_depth", WAITING, partial(getattr, queue, "depth"), queue=name)
    gauge("queue_depth", WAITING, lambda: broker.queued, queue="messages")
    gauge("credentials_cached", "Entries of the credential cache.", lambda: len(credentials))
    gauge("messages_total", MESSAGES, lambda: sum(each.received for each in totals), direction="received")
    gauge("messages_total", MESSAGES, lambda: sum(each.sent for each in totals), direction="sent")
    gauge("messages_total", MESSAGES, lambda: broker.dropped, direction="dropped")
    gauge("messages_total", MESSAGES, lambda: broker.refused, direction="refused")
