"""An archive of inspections, and the planner and the worker that score it again, in this process."""

import datetime as dt
import hashlib
import io
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from uuid import UUID

from sqlalchemy import Engine, text

from core.errors import Failure
from core.intake import submission
from core.intake.image_decoding import Header
from core.intake.submission import Accepted, NewInspection, StoredImage, Submission
from core.models import model_versions, recipes
from core.queue import notifications, work
from core.queue.notifications import Hints
from core.queue.work import Outcome
from core.rescoring import planning, runs
from core.rescoring.requests import RunRequest
from core.rescoring.runs import Run
from core.settings import Settings
from core.storage.image_store import Store, bundle_key, image_key
from core.vision.bundle.folder import read_folder
from core.vision.bundle.manifest import MANIFEST, digest, manifest_of
from core.vision.bundle.tar import pack
from tests.parts import png
from worker.pipeline.live_load import Line
from worker.pipeline.loaded_models import Models
from worker.rescoring.planning import Planner
from worker.rescoring.slice_scoring import Rescorer

DAY = dt.date(2026, 1, 2)
RECIPE = "ring"


class Night:
    """Stands in for the dispatcher: asks for planning and for scoring, until there is nothing to do."""

    def __init__(self, settings: Settings, engine: Engine) -> None:
        self.store = Store(settings.store_url)
        self.archive = self.store.root.parent / "archive"
        own = {"device": "cpu", "minibatch": 4, "rescore_slice": 10, "archive_roots": str(self.archive)}
        self.settings = settings.model_copy(update=own)
        self.engine = engine
        self.stopping = threading.Event()
        self.hints = Hints(settings)
        self.queues = notifications.connect(settings)
        self.line = Line(self.queues)
        self.planner = Planner(self.settings, engine, self.hints, self.stopping)
        self.worker = self.another_worker("worker")
        with engine.begin() as connection:
            recipes.create(connection, RECIPE, actor="test")

    def another_worker(self, name: str) -> Rescorer:
        models = Models(self.settings, self.engine, self.store)
        own = (self.settings, self.engine, self.store, models, self.hints, self.line)
        return Rescorer(*own, worker=name, stopping=self.stopping)

    def close(self) -> None:
        self.worker.close()
        self.hints.close()
        self.queues.close()

    def version(self, folder: Path) -> int:
        """Enter a bundle as a ready version; returns its number. The first is the active one."""
        files = read_folder(folder)
        sha256 = bytes.fromhex(digest(files[MANIFEST]))
        tar = io.BytesIO()
        pack(folder, tar)
        self.store.put(bundle_key(sha256), tar.getvalue())
        manifest = manifest_of(files).model_dump(mode="json")
        with self.engine.begin() as connection:
            made, _ = model_versions.register(connection, RECIPE, sha256=sha256, manifest=manifest, actor="test")
            model_versions.mark_ready(connection, made.id)
        return made.version

    def inspect(self, scores: Sequence[float | None], **fields: Any) -> list[UUID]:
        """Finished inspections of distinct pictures, with these scores by the active version; None for a failed one."""
        images = []
        for seed in range(len(scores)):
            data = png(seed)
            header = Header("image/png", 96, 64)
            images.append(StoredImage(DAY, hashlib.sha256(data).digest(), len(data), header))
            self.store.put(image_key(DAY, images[-1].sha256), data)
        with self.engine.begin() as connection:
            new = [NewInspection(one, RECIPE, **fields) for one in images]
            [accepted] = submission.accept(connection, [Submission(new)])
            assert isinstance(accepted, Accepted)
            ids = [one.id for one in accepted.inspections]
        for start in range(0, len(ids), 500):
            self._finish(accepted.recipe_ids[0], ids[start : start + 500], scores[start : start + 500])
        return ids

    def _finish(self, recipe_id: int, ids: Sequence[UUID], scores: Sequence[float | None]) -> None:
        with self.engine.begin() as connection:
            claims = work.claim(
                connection,
                recipe_id=recipe_id,
                ids=ids,
                priority="live",
                at_most=len(ids),
                lease_seconds=60,
                worker="test",
            )
            by_id = {claim.id: claim for claim in claims}
            outcomes = []
            for one, score in zip(ids, scores, strict=True):
                claim = by_id[one]
                if score is None:
                    outcomes.append(Outcome(one, claim.attempt, "failed", error_code=Failure.IMAGE_UNDECODABLE))
                else:
                    verdict = "ng" if score >= claim.threshold else "ok"
                    outcomes.append(
                        Outcome(one, claim.attempt, "completed", anomaly_score=score, verdict=verdict)  # type: ignore[arg-type]
                    )
            work.finish(connection, outcomes)

    def run(self, version: int = 1, **asked: Any) -> UUID:
        """Make a run over everything, or over the source that is named."""
        request = RunRequest.model_validate(
            {"recipe": RECIPE, "model_version": version, "source": {"where": {}}, **asked}
        )
        with self.engine.begin() as connection:
            return runs.create(connection, request, actor="test").id

    def get(self, run_id: UUID) -> Run:
        with self.engine.begin() as connection:
            return runs.get(connection, run_id)

    def plan(self) -> None:
        """Plan all runs that have room, as if each message arrived."""
        with self.engine.begin() as connection:
            connection.execute(text("UPDATE rescore_runs SET plan_published_at = NULL"))
            due = planning.due(connection)
        for one in due:
            self.planner.plan(one)

    def go_on(self, run_id: UUID) -> Run:
        """Plan and score until the run is final, or nothing more can be done for it."""
        before = None
        while (found := self.get(run_id)) != before and not found.final:
            before = found
            self.plan()
            self.worker.rescore()
        return found

    def results(self, run_id: UUID) -> list[Any]:
        with self.engine.begin() as connection:
            return list(
                connection.execute(
                    text("SELECT * FROM rescore_results WHERE run_id = :id ORDER BY number"), {"id": run_id}
                )
            )
