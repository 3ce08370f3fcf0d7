"""provisioning/metrics.py"""

import math

import pytest
from prometheus_client.parser import text_string_to_metric_families

from provisioning.metrics import BUCKETS, Metrics


def values(metrics: Metrics) -> dict[tuple[str, ...], float]:
    """Every sample by its name and its labels in the order of their names."""
    return {
        (sample.name, *(sample.labels[label] for label in sorted(sample.labels))): sample.value
        for family in text_string_to_metric_families(metrics.expose().decode())
        for sample in family.samples
    }


def test_counts_by_label_values() -> None:
    metrics = Metrics()
    metrics.login("enos", "accepted", "", 0.0002)
    metrics.login("enos", "accepted", "", 0.0002)
    metrics.login("enos", "refused", "not_proven", 0.02)
    metrics.activation("enos", "accepted")
    metrics.request("enos", "bootstrap", "refused", 0.004)
    metrics.delivery("failed", "timeout", 10.0)
    seen = values(metrics)
    assert seen["gatehouse_deliveries_total", "failed", "timeout"] == 1
    assert seen["gatehouse_delivery_seconds_count", "failed"] == 1
    assert seen["gatehouse_logins_total", "accepted", "enos", ""] == 2
    assert seen["gatehouse_logins_total", "refused", "enos", "not_proven"] == 1
    assert seen["gatehouse_activations_total", "accepted", "enos"] == 1
    assert seen["gatehouse_requests_total", "bootstrap", "refused", "enos"] == 1


def test_times_fall_into_buckets_from_a_tenth_of_a_millisecond() -> None:
    metrics = Metrics()
    metrics.login("enos", "accepted", "", 0.00009)
    metrics.request("enos", "bootstrap", "accepted", 0.004)
    seen = values(metrics)
    assert min(BUCKETS) == 0.0001
    assert seen["gatehouse_login_seconds_bucket", "0.0001", "enos"] == 1
    assert seen["gatehouse_request_seconds_bucket", "0.0025", "bootstrap", "enos"] == 0
    assert seen["gatehouse_request_seconds_bucket", "0.005", "bootstrap", "enos"] == 1
    assert seen["gatehouse_request_seconds_sum", "bootstrap", "enos"] == pytest.approx(0.004)


def test_a_gauge_is_read_at_each_scrape() -> None:
    metrics, sessions = Metrics(), [1]
    metrics.watch("open_sessions", "Sessions that are open", lambda: len(sessions))
    assert values(metrics)["gatehouse_open_sessions",] == 1
    sessions.append(2)
    assert values(metrics)["gatehouse_open_sessions",] == 2


def test_one_gauge_takes_several_label_values() -> None:
    metrics = Metrics()
    metrics.watch("queue_depth", "Waiting", lambda: 3, queue="outbox")
    metrics.watch("queue_depth", "Waiting", lambda: 5, queue="look-up")
    seen = values(metrics)
    assert seen["gatehouse_queue_depth", "outbox"] == 3
    assert seen["gatehouse_queue_depth", "look-up"] == 5
    assert metrics.expose().count(b"# TYPE gatehouse_queue_depth gauge") == 1


def test_a_broken_gauge_does_not_hide_the_others() -> None:
    metrics = Metrics()
    metrics.watch("pool_size", "Connections", lambda: 1 / 0)
    metrics.watch("pool_idle", "Idle connections", lambda: 4)
    seen = values(metrics)
    assert math.isnan(seen["gatehouse_pool_size",])
    assert seen["gatehouse_pool_idle",] == 4


def test_a_gauge_is_watched_once() -> None:
    metrics = Metrics()
    metrics.watch("queue_depth", "Waiting", lambda: 3, queue="outbox")
    with pytest.raises(ValueError, match="watched already"):
        metrics.watch("queue_depth", "Waiting", lambda: 3, queue="outbox")
    with pytest.raises(ValueError, match="has the labels"):
        metrics.watch("queue_depth", "Waiting", lambda: 3, site="http")


def test_instances_share_nothing() -> None:
    one, other = Metrics(), Metrics()
    one.activation("enos", "accepted")
    assert ("gatehouse_activations_total", "accepted", "enos") in values(one)
    assert ("gatehouse_activations_total", "accepted", "enos") not in values(other)


def test_a_total_is_a_counter() -> None:
    metrics = Metrics()
    metrics.watch("messages_total", "Messages", lambda: 7, direction="received")
    assert values(metrics)["gatehouse_messages_total", "received"] == 7
    assert b"# TYPE gatehouse_messages_total counter" in metrics.expose()


def test_process_and_platform_are_told() -> None:
    text = Metrics().expose()
    assert b"python_info{" in text
    assert b"process_resident_memory_bytes" in text
