"""HTML reports of runs, with images and heatmaps of what would change; rendered once and kept in the store."""

import logging
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self
from uuid import UUID

from sqlalchemy import Engine

from core.errors import Refused
from core.intake.image_decoding import Undecodable
from core.models import model_versions
from core.queue.notifications import Notifier
from core.rescoring import runs
from core.rescoring.reports import report, results
from core.rescoring.reports.html_report import IMAGES, ReportContent, ReportExample, render
from core.rescoring.reports.results import RunResult
from core.rescoring.runs import Run
from core.rescoring.slices import RunImage
from core.settings import Settings
from core.storage.image_store import Store, anomaly_map_key, failure_key
from core.vision.evaluation.heatmap import scale_to_threshold
from worker.pipeline.anomaly_maps import anomaly_map
from worker.pipeline.isolated_decoding import IsolatedDecoder
from worker.pipeline.loaded_models import LoadedModel, Models, ModelUnavailable
from worker.rescoring.image_reading import ImageReader

log = logging.getLogger(__name__)


class ReportRenderer:
    """Renders one report at a time; a concurrent request is dropped and must be repeated."""

    def __init__(self, settings: Settings, engine: Engine, store: Store, models: Models, notifier: Notifier) -> None:
        self._settings = settings
        self._engine = engine
        self._store = store
        self._models = models
        self._notifier = notifier
        self._reader = ImageReader(settings, store)
        self._rendering = threading.Lock()

    def close(self) -> None:
        self._reader.close()

    def make(self, run_id: UUID, key: str) -> None:
        """Render the report of a run and store it under `key`, or store the error next to it.

        Raises:
            ModelUnavailable: the run's version cannot be loaded here.
        """
        if not self._rendering.acquire(blocking=False):
            return
        try:
            if not self._store.holds(key):
                self._store.put(key, self._page(run_id).encode())
        except Refused as refusal:
            self._store.put(failure_key(key), refusal.detail.encode())
        finally:
            self._rendering.release()
        self._notifier.map_written(key)

    def _page(self, run_id: UUID) -> str:
        summary = report.build_report(self._engine, run_id)
        with self._engine.begin() as connection:
            run = runs.get(connection, run_id)
            if summary.compared:
                chosen = {
                    "ok_to_ng": results.largest_moves(connection, run_id, "ok", "ng", limit=IMAGES),
                    "ng_to_ok": results.largest_moves(connection, run_id, "ng", "ok", limit=IMAGES),
                }
            else:
                chosen = {"highest": results.highest_scores(connection, run_id, limit=IMAGES)}
        with _PageImages(self._settings, self._engine, self._store, self._models, self._reader, run) as images:
            gallery = {
                kind: [images.example(result) for result in chosen_results] for kind, chosen_results in chosen.items()
            }
        return render(ReportContent(summary, gallery, images.notes))


@dataclass(frozen=True)
class _HeatmapModel:
    """A loaded model version, and a child process that decodes for it."""

    sha256: bytes
    model: LoadedModel
    decoder: IsolatedDecoder


class _PageImages:
    """The images of one report: each is read once, and decoded only in child processes.

    Raises:
        ModelUnavailable: on entering, if the run's version cannot be loaded here.
    """

    def __init__(
        self, settings: Settings, engine: Engine, store: Store, models: Models, reader: ImageReader, run: Run
    ) -> None:
        self._settings = settings
        self._engine = engine
        self._store = store
        self._models = models
        self._reader = reader
        self._run = run
        self._models_by_version: dict[int, _HeatmapModel | None] = {}
        self._children = ExitStack()
        self.notes: list[str] = []

    def __enter__(self) -> Self:
        self._run_model = self._load(self._run.model_version_id)
        self._models_by_version[self._run.model_version_id] = self._run_model
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._children.close()

    def example(self, one: RunResult) -> ReportExample:
        """A result with its images, or with the reason why they are missing."""
        try:
            with self._file(one) as file:
                return ReportExample(
                    one,
                    self._run_model.decoder.encode_example(file),
                    self._before(one, file),
                    self._heat(self._run_model, one, file, one.anomaly_score, one.threshold),
                )
        except Undecodable as error:
            return ReportExample(one, missing=error.detail)
        except (Refused, OSError) as error:  # OSError: also an unavailable archive
            log.warning("an image of run %s cannot be read: %s", self._run.id, error)
            self._note("Images could not be read when this report was rendered: their source was unavailable.")
            return ReportExample(one)

    @contextmanager
    def _file(self, one: RunResult) -> Iterator[Path]:
        subject = RunImage(one.number, path=one.path, image_day=one.image_day, image_sha256=one.image_sha256)
        data = self._reader.read_original(self._run, subject)
        with tempfile.NamedTemporaryFile(prefix="linewatch-") as file:
            file.write(data)
            file.flush()
            yield Path(file.name)

    def _before(self, one: RunResult, file: Path) -> bytes | None:
        if one.before_model_version_id is None:
            return None
        model = self._model_of(one.before_model_version_id)
        if model is None:
            self._note(f"Version {one.before_model_version} could not be loaded, so its heatmaps are missing.")
            return None
        return self._heat(model, one, file, one.before_score, one.before_threshold)

    def _heat(
        self, model: _HeatmapModel, one: RunResult, file: Path, score: float | None, threshold: float | None
    ) -> bytes | None:
        if score is None or threshold is None or one.image_sha256 is None:
            return None
        key = anomaly_map_key(one.image_sha256, model.sha256)
        anomaly = anomaly_map(self._store, model.model, model.decoder, file, key)
        return model.decoder.encode_example(file, scale_to_threshold(anomaly, score, threshold))

    def _model_of(self, version_id: int) -> _HeatmapModel | None:
        if version_id not in self._models_by_version:
            try:
                self._models_by_version[version_id] = self._load(version_id)
            except ModelUnavailable as error:
                log.warning("a report lacks the heatmaps of a version: %s", error)
                self._models_by_version[version_id] = None
        return self._models_by_version[version_id]

    def _load(self, version_id: int) -> _HeatmapModel:
        model = self._models.get(version_id)
        with self._engine.begin() as connection:
            sha256 = model_versions.by_id(connection, version_id).sha256
        decoder = IsolatedDecoder(model.preprocessing, max_pixels=self._settings.max_image_pixels)
        return _HeatmapModel(sha256, model, self._children.enter_context(decoder))

    def _note(self, line: str) -> None:
        if line not in self.notes:
            self.notes.append(line)
