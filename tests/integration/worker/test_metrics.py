"""What a scoring worker and the dispatcher count."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client import REGISTRY
from prometheus_client.samples import Sample
from sqlalchemy import Engine, text

from core.queue.leases import MAX_RESCUES
from core.settings import Settings
from tests.fixtures.rescoring_workers import RECIPE
from tests.fixtures.scoring_queue import Queue
from worker.dispatcher import Dispatcher
from worker.pipeline.faults import WorkerUnfit
from worker.pipeline.loaded_models import LoadedModel


@pytest.fixture
def queue(settings: Settings, engine: Engine, bundle: Path) -> Iterator[Queue]:
    queue = Queue(settings, engine, bundle)
    yield queue
    queue.close()


class Growth:
    """How much metrics have grown since this was created."""

    def __init__(self) -> None:
        self._before: dict[tuple[str | tuple[str, str], ...], float] = {
            (sample.name, *sorted(sample.labels.items())): sample.value for sample in _samples()
        }

    def __call__(self, name: str, **labels: str) -> float:
        now: float = REGISTRY.get_sample_value(f"linewatch_{name}", labels) or 0.0
        return now - self._before.get((f"linewatch_{name}", *sorted(labels.items())), 0.0)


def _samples() -> Iterator[Sample]:
    for family in REGISTRY.collect():
        yield from family.samples


def test_a_minibatch_is_counted_by_stage_score_and_verdict(queue: Queue) -> None:
    growth = Growth()
    ids = queue.upload(3)
    queue.score(ids)
    assert queue.outcomes(ids) == ["completed"] * 3
    for stage, number in {"queue": 3, "load": 3, "decode": 3, "score": 1, "finish": 1}.items():
        assert growth("stage_duration_seconds_count", stage=stage) == number, stage
        assert 0 < growth("stage_duration_seconds_sum", stage=stage) < 60
    assert growth("scored_images_total") == 3
    assert growth("minibatch_fill_ratio_count") == 1
    assert growth("minibatch_fill_ratio_sum") == pytest.approx(3 / queue.models.minibatch)
    with queue.engine.begin() as connection:
        rows = connection.execute(text("SELECT verdict, anomaly_score / threshold AS ratio FROM inspections")).all()
    assert growth("anomaly_score_ratio_sum", recipe=RECIPE, version="1") == pytest.approx(
        sum(row.ratio for row in rows)
    )
    assert growth("anomaly_score_ratio_bucket", recipe=RECIPE, version="1", le="+Inf") == 3
    for verdict in ("ok", "ng", "review"):
        number = sum(row.verdict == verdict for row in rows)
        assert growth("inspections_total", recipe=RECIPE, status="completed", verdict=verdict) == number


def test_retries_releases_and_poison_are_counted(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise WorkerUnfit("the device is gone")

    growth = Growth()
    ids = queue.upload(2)
    with monkeypatch.context() as patch:
        patch.setattr(LoadedModel, "score_each", fail)
        with pytest.raises(WorkerUnfit):
            queue.score(ids)
    assert (growth("releases_total"), growth("retries_total")) == (2, 0)
    queue.set_rescues(MAX_RESCUES)
    queue.score(ids)
    assert queue.outcomes(ids) == ["poison"] * 2
    assert growth("retries_total") >= 2
    assert growth("inspection_failures_total", code="poison") == 2
    assert growth("inspections_total", recipe=RECIPE, status="failed", verdict="none") == 2
    assert growth("stage_duration_seconds_count", stage="score") == 0


def test_the_dispatcher_counts_rescues_and_overdue_inspections(queue: Queue, settings: Settings) -> None:
    growth = Growth()
    ids = queue.upload(3)
    with queue.engine.begin() as connection:
        connection.execute(
            text("UPDATE work SET state = 'running', attempt = 1, lease_until = now() - interval '1 s' WHERE id = :id"),
            {"id": ids[0]},
        )
        connection.execute(text("UPDATE work SET deadline_at = now() - interval '1 s' WHERE id = :id"), {"id": ids[1]})
        connection.execute(
            text("UPDATE work SET published_at = NULL, created_at = now() - interval '9 s' WHERE id = :id"),
            {"id": ids[2]},
        )
    dispatcher = Dispatcher(settings)
    try:
        dispatcher.round()
    finally:
        dispatcher.close()
    assert growth("rescues_total") == 1
    assert growth("inspections_total", recipe=RECIPE, status="failed", verdict="none") == 1
    assert growth("inspection_failures_total", code="deadline_exceeded") == 1
    assert growth("republished_inspections_total", queue="live") >= 1
    assert growth("dispatcher_round_duration_seconds_count") == 1
    assert growth("dispatcher_check_failures_total") == 0
