"""Counts and times for Prometheus; one `Metrics` per application, nothing global.

A label value makes a series that lives as long as the process. Callers pass only values from closed sets (protocol
names, operation names, `Reason`, the outcomes accepted, refused and failed): never a product, a path, a method or
anything else that a stranger may choose.
"""

import math
from collections.abc import Callable, Iterator
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Histogram, PlatformCollector, ProcessCollector
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

CONTENT_TYPE: Final = CONTENT_TYPE_PLAIN_0_0_4
"""Media type of `Metrics.expose`: the text format that every scraper reads."""

BUCKETS: Final = (
    0.0001,
    0.00025,
    0.0005,
    0.001,
    0.0025,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1.0,
    2.5,
    5.0,
    10.0,
    30.0,
)
"""Upper bounds in seconds: from a login answered from the cache to the longest deadline of a request."""

PREFIX: Final = "gatehouse_"

Read = Callable[[], float]


class Metrics:
    """What the service counts. For use on the event loop; no method raises for what it is told."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._logins = _Counters(self._registry, "logins", "MQTT logins", "protocol", "outcome", "reason")
        self._activations = _Counters(self._registry, "activations", "Dynamic activations", "protocol", "outcome")
        self._requests = _Counters(self._registry, "requests", "HTTP requests", "protocol", "operation", "outcome")
        self._deliveries = _Counters(self._registry, "deliveries", "Webhook deliveries tried", "outcome", "reason")
        self._delivery_seconds = _Times(self._registry, "delivery_seconds", "Webhook delivery to answer", "outcome")
        self._login_seconds = _Times(self._registry, "login_seconds", "CONNECT to CONNACK", "protocol")
        self._request_seconds = _Times(
            self._registry, "request_seconds", "HTTP request to answer", "protocol", "operation"
        )
        self._watched = _Watched()
        self._registry.register(self._watched)
        ProcessCollector(registry=self._registry)
        PlatformCollector(registry=self._registry)

    def login(self, protocol: str, outcome: str, reason: str, seconds: float) -> None:
        """An MQTT login ended after `seconds`; `reason` is empty for an accepted one."""
        self._logins.add(protocol, outcome, reason)
        self._login_seconds.add(seconds, protocol)

    def activation(self, protocol: str, outcome: str) -> None:
        self._activations.add(protocol, outcome)

    def request(self, protocol: str, operation: str, outcome: str, seconds: float) -> None:
        """An HTTP operation ended after `seconds`."""
        self._requests.add(protocol, operation, outcome)
        self._request_seconds.add(seconds, protocol, operation)

    def delivery(self, outcome: str, reason: str, seconds: float) -> None:
        """An attempt to deliver to a webhook ended after `seconds`; `reason` is empty for one that was accepted."""
        self._deliveries.add(outcome, reason)
        self._delivery_seconds.add(seconds, outcome)

    def watch(self, name: str, help: str, read: Read, **labels: str) -> None:  # noqa: A002 - Prometheus' own word
        """Expose what `read` gives at each scrape as `gatehouse_<name>`: a counter for `…_total`, else a gauge.

        One name may be watched once for each set of label values. A `read` that raises shows as NaN.

        Raises:
            ValueError: the name is watched with these label values already, or with other label names.
        """
        self._watched.add(PREFIX + name, help, read, labels)

    def expose(self) -> bytes:
        """Everything in the text format of `CONTENT_TYPE`."""
        return generate_latest(self._registry)


class _Counters:
    """A counter whose children are looked up by a plain dict: `labels()` costs more than the count itself."""

    def __init__(self, registry: CollectorRegistry, name: str, help_: str, *labels: str) -> None:
        self._parent = Counter(PREFIX + name, help_, labels, registry=registry)
        self._children: dict[tuple[str, ...], Counter] = {}

    def add(self, *values: str) -> None:
        child = self._children.get(values)
        if child is None:
            child = self._children[values] = self._parent.labels(*values)
        child.inc()


class _Times:
    def __init__(self, registry: CollectorRegistry, name: str, help_: str, *labels: str) -> None:
        self._parent = Histogram(PREFIX + name, f"{help_}, in seconds", labels, registry=registry, buckets=BUCKETS)
        self._children: dict[tuple[str, ...], Histogram] = {}

    def add(self, seconds: float, *values: str) -> None:
        child = self._children.get(values)
        if child is None:
            child = self._children[values] = self._parent.labels(*values)
        child.observe(seconds)


class _Gauge:
    def __init__(self, help_: str, labels: tuple[str, ...]) -> None:
        self.help = help_
        self.labels = labels
        self.reads: dict[tuple[str, ...], Read] = {}


class _Watched(Collector):
    def __init__(self) -> None:
        self._gauges: dict[str, _Gauge] = {}

    def add(self, name: str, help_: str, read: Read, labels: dict[str, str]) -> None:
        names, values = tuple(sorted(labels)), tuple(labels[label] for label in sorted(labels))
        gauge = self._gauges.setdefault(name, _Gauge(help_, names))
        if gauge.labels != names:
            raise ValueError(f"{name} has the labels {gauge.labels}, not {names}")
        if values in gauge.reads:
            raise ValueError(f"{name} {labels} is watched already")
        gauge.reads[values] = read

    def collect(self) -> Iterator[GaugeMetricFamily | CounterMetricFamily]:
        for name, gauge in self._gauges.items():
            kind = CounterMetricFamily if name.endswith("_total") else GaugeMetricFamily
            family = kind(name, gauge.help, labels=gauge.labels)
            for values, read in gauge.reads.items():
                family.add_metric(values, _value(read))
            yield family


def _value(read: Read) -> float:
    try:
        return float(read())
    except Exception:  # noqa: BLE001 - one broken gauge must not hide the others
        return math.nan
