"""Carry out training runs, one at a time: claim a run, train it in a child process, and register the new version.

The folder of a run, in the scratch folder of the store, holds its checkpoints until it ends, and a folder of drafts for
each attempt.
"""

import json
import logging
import shutil
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine

from core.database import UNUSABLE
from core.errors import Refused
from core.intake.image_formats import SUFFIX_OF
from core.logs import bound
from core.models import recipes
from core.queue.finishing import Finished
from core.queue.notifications import Notifier
from core.settings import MAX_LEASE_SECONDS, Settings
from core.storage import bundles
from core.storage.image_store import Store, image_key, training_folder_key, training_report_key
from core.training_runs import claims, gathering, images, runs
from core.training_runs.claims import Claim, Progress
from core.training_runs.images import TrainingImage
from core.training_runs.runs import Run
from core.vision.bundle.tar import pack
from core.vision.errors import InvalidBundle
from worker.pipeline.leases import keep_renewed, write_when_usable
from worker.training_runs.child_process import TrainingProcess
from worker.training_runs.files import BUNDLE, REPORT
from worker.training_runs.run_image import RunImage

log = logging.getLogger(__name__)

LEASES = 3
"""The lease of a run is so many times that of inspections: a lost claim costs the work since the last checkpoint."""
RENEW_SECONDS = 1.0
"""How often progress is stored and a cancellation is noticed."""
COPY_SECONDS = 6 * 3600.0
"""Preparing may take so long, as images are copied from a bucket. A read that hangs fails much sooner."""
PAUSE_SECONDS = 10.0
"""The pause after a crash or a fault of the store, before the next attempt."""

T = TypeVar("T")


class _ClaimLost(Exception):  # noqa: N818 - it names what happened
    """The run was cancelled, or another worker has claimed it."""


class _Stopped(Exception):  # noqa: N818 - it names what happened
    """This worker is stopping."""


class _Crashed(Exception):  # noqa: N818 - it names what happened
    """The process of the training ended without an outcome. The message is a sentence."""


class _Failed(Exception):  # noqa: N818 - it names what happened
    """The training cannot succeed. The message is one line that explains why."""


class Trainer:
    """Trains the runs that are queued. Not thread-safe: one run at a time."""

    def __init__(
        self,
        settings: Settings,
        engine: Engine,
        store: Store,
        notifier: Notifier,
        *,
        worker: str,
        stopping: threading.Event,
        check_version: Callable[[int], None],
    ) -> None:
        """`check_version` is called with the id of a version that was registered and is to be checked."""
        self._settings = settings
        self._engine = engine
        self._store = store
        self._notifier = notifier
        self._worker = worker
        self._stopping = stopping
        self._check_version = check_version
        self._lease_seconds = min(LEASES * settings.lease_seconds, MAX_LEASE_SECONDS)

    def train_queued(self) -> None:
        """Train until no run is queued or this worker is stopping."""
        while not self._stopping.is_set():
            with self._engine.begin() as connection:
                claim = claims.claim(connection, worker=self._worker, lease_seconds=self._lease_seconds)
            if claim is None:
                return
            with bound(training_run_id=claim.run_id):
                self._train(claim)

    def _train(self, claim: Claim) -> None:
        """Train a run and write its outcome."""
        with self._engine.begin() as connection:
            run = runs.by_id(connection, claim.run_id)
        log.info("training run %s of recipe %s starts, attempt %d", run.id, run.recipe, claim.attempt)
        folder = self._store.scratch / training_folder_key(run.id)
        attempt = folder / f"attempt-{claim.attempt}"
        try:
            result = self._result_of_child(claim, run, folder, attempt)
            self._complete(claim, run, attempt, result)
        except _ClaimLost:
            log.info("training run %s was cancelled, or its claim was lost", run.id)
        except _Stopped:
            self._write(claims.release, claim)
        except (_Crashed, OSError) as error:
            reason = str(error) if isinstance(error, _Crashed) else f"The image store cannot be used: {error}."
            log.warning("training run %s: %s", run.id, reason)
            failed = self._write(claims.end_crashed, claim, reason)
            self._stopping.wait(0 if failed else PAUSE_SECONDS)
        except _Failed as error:
            log.warning("training run %s failed: %s", run.id, error)
            self._write(claims.fail, claim, str(error))
        finally:
            self._tidy(run, folder, attempt)

    def _write(self, transition: Callable[..., T], *arguments: Any) -> T:
        def write() -> T:
            with self._engine.begin() as connection:
                return transition(connection, *arguments)

        return write_when_usable(write, "the outcome of a training")

    def _tidy(self, run: Run, folder: Path, attempt: Path) -> None:
        """Remove the drafts; and the checkpoints, unless the run continues. Tell those who wait for its end."""
        try:
            with self._engine.begin() as connection:
                continues = bool(runs.which_may_continue(connection, [run.id]))
        except UNUSABLE:
            return  # housekeeping removes the folder later
        shutil.rmtree(attempt if continues else folder, ignore_errors=True)
        if not continues:
            self._notifier.finished(Finished([], [], [run.id]))

    @contextmanager
    def _renewed(self, claim: Claim) -> Iterator[threading.Event]:
        """Renew the claim while the block prepares or finishes a training. The event is set once it is lost."""
        with keep_renewed(
            lambda: self._renew(claim),
            lease_seconds=self._lease_seconds,
            every=RENEW_SECONDS,
            stuck_seconds=COPY_SECONDS,
        ) as lost:
            yield lost
        if lost.is_set():
            raise _ClaimLost

    def _renew(self, claim: Claim, progress: Progress | None = None, stored: Progress | None = None) -> bool:
        with self._engine.begin() as connection:
            return claims.renew(connection, claim, lease_seconds=self._lease_seconds, progress=progress, stored=stored)

    def _result_of_child(self, claim: Claim, run: Run, folder: Path, attempt: Path) -> dict[str, Any]:
        """Train in a child process, and return the result that it writes."""
        with self._renewed(claim) as lost:
            for earlier in folder.glob("attempt-*"):
                shutil.rmtree(earlier, ignore_errors=True)
            attempt.mkdir(parents=True)
            request = attempt / "request.json"
            request.write_text(json.dumps(self._request(run, folder, attempt, lost)))
        with TrainingProcess(request, self._settings) as child:
            stored: Progress | None = None
            while not child.has_ended(RENEW_SECONDS):
                if self._stopping.is_set():
                    raise _Stopped
                stored = self._store_progress(claim, child.progress(), stored)
            outcome, status = child.outcome, child.process.returncode
        if outcome is None:
            raise _Crashed(f"The process of the training ended with status {status}, perhaps for lack of memory.")
        if "failed" in outcome:
            raise _Failed(outcome["failed"])
        result: dict[str, Any] = outcome["completed"]
        return result

    def _store_progress(self, claim: Claim, progress: Progress | None, stored: Progress | None) -> Progress | None:
        """Renew the claim, store what is new, and return what is stored now.

        While the database cannot be used, the training goes on.

        Raises:
            _ClaimLost: another worker has the run, or it was cancelled.
        """
        try:
            is_held = self._renew(claim, progress, stored)
        except UNUSABLE as error:
            log.warning("the progress of training run %s cannot be stored now: %s", claim.run_id, error)
            return stored
        if not is_held:
            raise _ClaimLost
        return progress

    def _request(self, run: Run, folder: Path, attempt: Path, lost: threading.Event) -> dict[str, Any]:
        """The request for the child: see `worker.training_runs.program.run_training`. Ends once the claim is lost."""
        gathering.gather(self._engine, run)
        with self._engine.begin() as connection:
            used = images.all_of(connection, run.id)
            recipe = recipes.get(connection, run.recipe)
        past = []
        if run.compare and recipe.active_version is not None:
            past = gathering.newest_completed(self._engine, run.recipe, run.compare)
        keys = [image_key(image.day, image.sha256) for image in used]
        past_keys = [image_key(inspection.image_day, inspection.image_sha256) for inspection in past]
        paths = self._local_paths([*keys, *past_keys], attempt / "images", lost)
        return {
            "recipe": run.recipe,
            "images": [asdict(_run_image(image, paths[key])) for image, key in zip(used, keys, strict=True)],
            "options": {"bit_depth": recipe.bit_depth, **run.options},
            "device": self._settings.training_device,
            "niceness": self._settings.training_niceness,
            "max_pixels": self._settings.max_image_pixels,
            "past": [
                {
                    "id": str(inspection.id),
                    "sha256": inspection.image_sha256.hex(),
                    "verdict": inspection.verdict,
                    "reviewed": inspection.reviews[-1].verdict if inspection.reviews else None,
                    "path": paths[key],
                }
                for inspection, key in zip(past, past_keys, strict=True)
            ],
            "folder": str(folder),
            "attempt": str(attempt),
        }

    def _local_paths(self, keys: Iterable[str], folder: Path, lost: threading.Event) -> dict[str, str]:
        """Where the child finds images: in the store if it is a folder, else in copies in this folder."""
        folder.mkdir()

        def path(key: str) -> str:
            if self._stopping.is_set():
                raise _Stopped
            if lost.is_set():
                raise _ClaimLost
            return str(self._store.local_path(key, folder))

        each = list(dict.fromkeys(keys))
        with ThreadPoolExecutor(self._store.threads, thread_name_prefix="images") as threads:
            return dict(zip(each, threads.map(path, each), strict=True))

    def _complete(self, claim: Claim, run: Run, attempt: Path, result: dict[str, Any]) -> None:
        """Store the bundle and the report, register the version, and complete the run: the last two in one commit."""
        staged = self._store.stage()
        try:
            with self._renewed(claim):
                pack(attempt / BUNDLE, staged.file)
                staged.flush()
                bundle = bundles.verify(staged, max_bytes=self._settings.max_bundle_bytes)
                bundle.publish(self._store)
                self._store.put(training_report_key(run.id), (attempt / REPORT).read_bytes())

            def complete(connection: Connection) -> int:
                version, _ = bundle.register(connection, run.recipe, actor=run.actor)
                if not claims.complete(connection, claim, version.id, result):
                    raise _ClaimLost  # and register nothing
                return version.id

            version_id = self._write(complete)
        except (Refused, InvalidBundle) as error:
            raise _Failed(f"The new version cannot be stored: {error}") from error
        finally:
            staged.discard()
        log.info("training run %s is completed", run.id)
        self._check_version(version_id)


def _run_image(image: TrainingImage, path: str) -> RunImage:
    return RunImage(
        path=path,
        sha256=image.sha256.hex(),
        suffix=SUFFIX_OF[image.media_type],
        label=image.label,
        name=image.name,
        inspection_id=None if image.inspection_id is None else str(image.inspection_id),
        part_ids=image.part_ids,
        was_rejected=image.was_rejected,
    )
