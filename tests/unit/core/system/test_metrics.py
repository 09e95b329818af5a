"""The metrics of the system are those of its document; one read serves all scrapes of some seconds."""

from prometheus_client import CollectorRegistry

from core.system.documents import Store, System
from core.system.metrics import KEPT_SECONDS, SystemMetrics
from tests.fixtures.system_documents import ENDPOINT, NOW, queue, system


def registry_of(state: System | None) -> CollectorRegistry:
    registry = CollectorRegistry()
    registry.register(SystemMetrics(lambda: state))
    return registry


def test_every_figure_of_the_document_is_exported() -> None:
    registry = registry_of(system())
    expected: list[tuple[str, dict[str, str], float | None]] = [
        ("database_up", {}, 1),
        ("broker_up", {}, 1),
        ("health", {"status": "degraded"}, 1),
        ("health", {"status": "ok"}, 0),
        ("queue_depth", {"queue": "live", "state": "waiting"}, 3),
        ("queue_depth", {"queue": "live", "state": "running"}, 2),
        ("queue_depth", {"queue": "io", "state": "waiting"}, None),
        ("queue_oldest_age_seconds", {"queue": "live"}, 12.5),
        ("queue_oldest_age_seconds", {"queue": "bulk"}, 0),
        ("queue_oldest_age_seconds", {"queue": "io"}, None),
        ("queue_messages", {"queue": "live"}, 1),
        ("workers", {"kind": "scoring", "state": "ready"}, 1),
        ("workers", {"kind": "scoring", "state": "lost"}, 1),
        ("workers", {"kind": "training", "state": "ready"}, 0),
        ("store_images", {}, 7),
        ("store_image_bytes", {}, 700),
        ("store_disk_size_bytes", {"of": "store"}, 1000),
        ("store_disk_free_bytes", {"of": "store"}, 250),
        ("store_disk_min_free_bytes", {"of": "store"}, 50),
        ("database_size_bytes", {}, 9000),
        ("feed_consumer_lag_entries", {"consumer": "mes"}, 4),
        ("feed_consumer_acknowledged_timestamp_seconds", {"consumer": "mes"}, NOW.timestamp()),
        ("webhook_deliveries", {"endpoint": str(ENDPOINT), "state": "pending"}, 5),
        ("webhook_deliveries", {"endpoint": str(ENDPOINT), "state": "exhausted"}, 1),
        ("webhook_endpoint_failing", {"endpoint": str(ENDPOINT)}, 1),
    ]
    for name, labels, value in expected:
        assert registry.get_sample_value(f"linewatch_{name}", labels) == value, (name, labels)


def test_what_is_unknown_is_left_out() -> None:
    nothing = Store(
        images=None,
        image_bytes=None,
        counted_at=None,
        disk_of=None,
        disk_bytes=None,
        disk_free_bytes=None,
        min_free_bytes=None,
    )
    registry = registry_of(system(store=nothing, queues=[queue("live", messages=None)]))
    assert registry.get_sample_value("linewatch_broker_up") == 0
    for name in ("store_images", "store_disk_free_bytes", "store_disk_min_free_bytes"):
        assert registry.get_sample_value(f"linewatch_{name}") is None
    assert registry.get_sample_value("linewatch_queue_messages", {"queue": "live"}) is None


def test_without_the_database_only_that_is_exported() -> None:
    families = list(registry_of(None).collect())
    assert [(family.name, family.samples[0].value) for family in families] == [("linewatch_database_up", 0)]


def test_scrapes_share_one_read_for_some_seconds() -> None:
    now, reads = [100.0], 0

    def read() -> System:
        nonlocal reads
        reads += 1
        return system()

    metrics = SystemMetrics(read, clock=lambda: now[0])
    for now[0] in (100.0, 100.0 + KEPT_SECONDS / 2):
        assert len(list(metrics.collect())) > 10
    assert reads == 1
    now[0] = 100.0 + KEPT_SECONDS
    list(metrics.collect())
    assert reads == 2
