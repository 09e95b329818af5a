"""The scoring worker's tasks: `celery -A worker.scoring worker --queues sync,live,bulk --pool threads`."""

import logging
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import cached_property
from typing import Any
from uuid import UUID

from celery import signals
from prometheus_client import REGISTRY

from core.database import create_pool
from core.intake.image_decoding import Undecodable
from core.queue import notifications
from core.queue.broker import BULK_QUEUE, Task
from core.queue.notifications import Notifier
from core.settings import settings, settings_or_exit
from core.storage.image_store import failure_key
from core.storage.stores import open_store
from core.tracing import traces
from core.vision.evaluation.heatmap import scale_to_threshold
from worker.app import Readiness, create_app, end_process
from worker.heartbeat import Activity, Heartbeat, process_name
from worker.model_checking import ModelChecker
from worker.outages import BROKER_DOWN
from worker.pipeline.anomaly_maps import anomaly_map as anomaly_map_of
from worker.pipeline.faults import WorkerUnfit
from worker.pipeline.gpu_use import GpuUse
from worker.pipeline.isolated_decoding import IsolatedDecoder
from worker.pipeline.live_load import LiveLoad
from worker.pipeline.loaded_models import LoadedModel, Models, ModelUnavailable
from worker.pipeline.scoring_pipeline import ScoringPipeline
from worker.rescoring.report_rendering import ReportRenderer
from worker.rescoring.slice_scoring import Rescorer
from worker.schema import wait_until_migrated

log = logging.getLogger(__name__)


class Process:
    """The objects that live as long as the process; created when the worker starts."""

    def __init__(self) -> None:
        self.settings = settings()
        self.engine = create_pool(
            self.settings,
            size=2 * self.settings.scoring_slots + 1,
            name="scoring",
            unit_seconds=self.settings.lease_seconds,
        )
        self.store = open_store(self.settings)
        self.notifier = Notifier(self.settings)
        self.models = Models(self.settings, self.engine, self.store)
        self.readiness = Readiness(self.settings.ready_file)
        self.live_load = LiveLoad(notifications.connect(self.settings))
        self.stopping = threading.Event()
        name = process_name()
        services = (self.settings, self.engine, self.store, self.models, self.notifier)
        self.pipeline = ScoringPipeline(*services, worker=name)
        self.reporter = ReportRenderer(*services)
        self.checker = ModelChecker(
            self.settings,
            self.engine,
            self.store,
            self.models,
            stopping=self.stopping,
            guard=worker.ended_if_unfit,
        )
        self.rescorer = Rescorer(*services, self.live_load, worker=name, stopping=self.stopping)
        self.heartbeat = Heartbeat(self.settings, "scoring", self.activity)

    def activity(self) -> Activity:
        """What this process is doing, for its heartbeat."""
        fill, images_per_second = self.models.throughput.means()
        return Activity(self.readiness.is_set, self.models.device, self.models.loaded_ids, fill, images_per_second)


class _Worker:
    """Holds the objects of the process, which are created when the worker starts or by its first task."""

    def __init__(self) -> None:
        self._unfit = threading.Event()
        self._ending = threading.Lock()

    @cached_property
    def process(self) -> Process:
        return Process()

    def on_init(self, **_: Any) -> None:
        traces.start_or_exit("linewatch-scoring")
        wait_until_migrated(settings())
        log.info("scoring on %s", self.process.models.device)
        if self.process.models.device == "cuda":
            REGISTRY.register(GpuUse())
        self.process.heartbeat.start()

    def on_ready(self, **_: Any) -> None:
        self.process.heartbeat.set_ready()

    def on_shutting_down(self, **_: Any) -> None:
        self.process.stopping.set()
        self.process.heartbeat.set_stopping()

    @contextmanager
    def ended_if_unfit(self) -> Iterator[None]:
        """End this process if the block finds that it cannot go on. What the block claimed was released."""
        try:
            yield
        except WorkerUnfit as error:
            with self._ending:
                if self._unfit.is_set():
                    return
                self._unfit.set()
            log.critical("%s; this worker ends", error)
            self.process.stopping.set()
            self.process.readiness.set(False)
            end_process()

    def set_ready(self) -> None:
        """Mark this process as ready, unless it is stopping."""
        if not self.process.stopping.is_set():
            self.process.readiness.set(True)

    def on_shutdown(self, **_: Any) -> None:
        if self._unfit.is_set():
            os._exit(1)  # waiting for stuck threads would take forever
        self.process.heartbeat.request_stop()
        self.process.pipeline.close()
        self.process.checker.close()
        self.process.reporter.close()
        self.process.rescorer.close()
        self.process.notifier.close()
        self.process.engine.dispose()
        self.process.heartbeat.stop()
        traces.stop()


app = create_app("linewatch-scoring", settings_or_exit())
worker = _Worker()
signals.worker_init.connect(worker.on_init, weak=False)
signals.worker_ready.connect(worker.on_ready, weak=False)
signals.worker_shutting_down.connect(worker.on_shutting_down, weak=False)
signals.worker_shutdown.connect(worker.on_shutdown, weak=False)


@app.task(name=Task.SCORE)
@worker.ended_if_unfit()
def score(recipe_id: int, priority: str, ids: Sequence[str]) -> None:
    """Score a minibatch."""
    process = worker.process
    served = nullcontext() if priority == "bulk" else process.live_load.served()
    try:
        with served:
            process.pipeline.score_minibatch(recipe_id, priority, [UUID(text) for text in ids])
    except ModelUnavailable as error:
        process.readiness.set(False)
        log.error("%s; its inspections were released", error)
    else:
        worker.set_ready()


@app.task(name=Task.RESCORE)
@worker.ended_if_unfit()
def rescore(granted: int = 0) -> None:
    """Score slices of archives. `granted` of their images are scored even while live work waits."""
    process = worker.process
    try:
        may_be_more = process.rescorer.rescore(granted)
    except ModelUnavailable as error:
        process.readiness.set(False)
        log.error("%s; its slice was released", error)
        return
    except OSError as error:
        log.warning("the source of a re-scoring run is unavailable, its slice was released: %s", error)
        return
    # After a grant, the dispatcher sends the next message.
    if may_be_more and not granted and not process.stopping.is_set():
        try:
            app.send_task(Task.RESCORE, queue=BULK_QUEUE, ignore_result=True, retry=False)
        except BROKER_DOWN as error:
            log.warning("could not publish the next slice, the dispatcher will: %s", error)


@app.task(name=Task.CHECK_MODEL)
def check_model(version_id: int) -> None:
    """Start a check of an uploaded version: it is ready if it loads and reproduces its golden scores."""
    worker.process.checker.request(version_id)


@app.task(name=Task.ANOMALY_MAP)
@worker.ended_if_unfit()
def anomaly_map(source: str, version_id: int, key: str) -> None:
    """Compute an anomaly map and store it under `key`, or store the error next to it."""
    process = worker.process
    if not process.store.holds(key):
        try:
            model = process.models.get(version_id)
            with _isolated(process, model) as decoder, process.store.local_file(source) as image:
                anomaly_map_of(process.store, model, decoder, image, key)
        except Undecodable as error:
            process.store.put(failure_key(key), error.detail.encode())
    process.notifier.map_written(key)


@app.task(name=Task.HEATMAP)
@worker.ended_if_unfit()
def heatmap(source: str, version_id: int, map_key: str, key: str, score: float, threshold: float) -> None:
    """Draw a heatmap and store it under `key`, or store the error next to it.

    Its anomaly map is read from `map_key`, or computed and stored there.
    """
    process = worker.process
    if not process.store.holds(key):
        try:
            model = process.models.get(version_id)
            with _isolated(process, model) as decoder, process.store.local_file(source) as image:
                anomaly = anomaly_map_of(process.store, model, decoder, image, map_key)
                process.store.put(key, decoder.heatmap(image, scale_to_threshold(anomaly, score, threshold)))
        except Undecodable as error:
            process.store.put(failure_key(key), error.detail.encode())
    process.notifier.map_written(key)


@app.task(name=Task.RESCORE_REPORT)
@worker.ended_if_unfit()
def rescore_report(run_id: str, key: str) -> None:
    """Render the HTML report of a run and store it under `key`, or store the error next to it."""
    try:
        worker.process.reporter.make(UUID(run_id), key)
    except ModelUnavailable as error:
        log.error("%s; the report of its run is unavailable for now", error)


def _isolated(process: Process, model: LoadedModel) -> IsolatedDecoder:
    """A decoder in a child process: these images have not been decoded at full size before, and one may crash it."""
    return IsolatedDecoder(model.preprocessing, max_pixels=process.settings.max_image_pixels)
