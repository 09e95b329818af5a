"""Training runs: train a new model version in a worker of the system."""

import os
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypedDict
from uuid import UUID

from linewatch.http.request_bodies import (
    Body,
    FilePart,
    ImageFile,
    SentCounter,
    Source,
    as_json,
    form,
    open_image,
    safe_filename,
)
from linewatch.http.transport import Request
from linewatch.operations.session import Session, key_or_new, url_path
from linewatch.types.training import AddedTrainingImages, TrainingRun, TrainingRunPage

_IMAGES_PER_REQUEST = 200


class TrainingInspections(TypedDict, total=False):
    """Which inspections a run learns from. None is the same as absent.

    `good` are those `reviewed` as ok, or all whose `effective` verdict is ok. With `defects`, those reviewed as ng are
    test images. At most `limit` of each kind are read, the newest ones.
    """

    good: Literal["reviewed", "effective"]
    defects: bool
    lot_id: str | None
    line_id: str | None
    station_id: str | None
    since: datetime | str | None
    until: datetime | str | None
    limit: int


class TrainingRuns(Session):
    """Operations on training runs."""

    async def create_training(
        self,
        recipe: str,
        *,
        options: Mapping[str, Any] | None = None,
        inspections: TrainingInspections | None = None,
        compare: int | None = None,
        idempotency_key: str | None = None,
    ) -> TrainingRun:
        """Create an open training run. Add images or name inspections, and then start it with `start_training`.

        Example:
            run = lw.create_training("ring", options={"architecture": "feature-gaussian"})
            added = lw.add_training_images("ring", run.id, ["part.png"])
            print(added.images)

        Args:
            options: of the training, such as `architecture`, `budget_seconds` and `false_reject_rate`.
            inspections: inspections to learn from, besides images that you add.
            compare: compare with the verdicts of so many of the newest inspections; 500 by default.
            idempotency_key: the same key with the same request is one run, as for `submit`.

        Raises:
            ValueError: `idempotency_key` is not a valid key.
        """
        source = None if inspections is None else {name: _plain(value) for name, value in inspections.items()}
        fields = {"options": options, "inspections": source, "compare": compare}
        document = {name: value for name, value in fields.items() if value is not None}
        path = url_path("recipes", recipe, "training-runs")
        return await self._upload(TrainingRun, path, partial(as_json, document), key=key_or_new(idempotency_key))

    async def add_training_images(
        self,
        recipe: str,
        run_id: UUID | str,
        images: Iterable[str | os.PathLike[str]] | Mapping[str, ImageFile],
        *,
        label: str = "good",
        progress: Callable[[int], None] | None = None,
    ) -> AddedTrainingImages:
        """Add images to an open run, in several requests if there are many. Adding an image again changes nothing.

        Args:
            images: paths, or a mapping of file names to images.
            label: `good` to train on; `test/good` or `test/<type>` to judge with.
            progress: called with how many images have been sent.

        Raises:
            Refused: none of the images of a request was accepted, or the run is not open.
            OSError: a file cannot be read.
            ValueError: there are no images.
        """
        named = images.items() if isinstance(images, Mapping) else [(Path(path).name, path) for path in images]
        sources = [(safe_filename(name), open_image(image)[1]) for name, image in named]
        if not sources:
            raise ValueError("there are no images to add")
        path = url_path("recipes", recipe, "training-runs", run_id, "images")
        sent = SentCounter(progress)
        answers = []
        for start in range(0, len(sources), _IMAGES_PER_REQUEST):
            body = partial(_images_form, label, sources[start : start + _IMAGES_PER_REQUEST], sent)
            answers.append(await self._upload(AddedTrainingImages, path, body, key=None))
        return AddedTrainingImages(
            added=sum(answer.added for answer in answers),
            duplicates=sum(answer.duplicates for answer in answers),
            errors=[error for answer in answers for error in answer.errors],
            images=answers[-1].images,
        )

    async def start_training(self, recipe: str, run_id: UUID | str) -> TrainingRun:
        """Start an open run: a training worker trains it as soon as it is free."""
        return await self._post(TrainingRun, url_path("recipes", recipe, "training-runs", run_id, "start"))

    async def training_run(self, recipe: str, run_id: UUID | str, *, wait: float = 0.0) -> TrainingRun:
        """One run, as soon as it is final or after `wait` seconds."""
        return await self._final(TrainingRun, url_path("recipes", recipe, "training-runs", run_id), wait)

    async def follow_training(
        self, recipe: str, run_id: UUID | str, *, every: float = 1.0
    ) -> AsyncGenerator[TrainingRun, None]:
        """The run, now and every `every` seconds until it is final. It waits while the system is down."""
        reader = TrainingRuns(self._transport.tireless())
        wait = 0.0
        while True:
            run = await reader._get(TrainingRun, url_path("recipes", recipe, "training-runs", run_id), wait=wait)
            yield run
            if run.final:
                return
            wait = every

    async def training_runs(
        self, recipe: str, *, status: str | None = None, page_size: int = 20
    ) -> AsyncGenerator[TrainingRun, None]:
        """The training runs of a recipe, newest first. Pages are fetched on demand."""
        params = {"limit": page_size, **({} if status is None else {"status": status})}
        async for page in self._pages(TrainingRunPage, url_path("recipes", recipe, "training-runs"), params):
            for run in page.items:
                yield run

    async def cancel_training(self, recipe: str, run_id: UUID | str) -> TrainingRun:
        """Cancel a run that has not ended."""
        return await self._post(TrainingRun, url_path("recipes", recipe, "training-runs", run_id, "cancel"))

    async def download_training_report(self, recipe: str, run_id: UUID | str, to: str | os.PathLike[str]) -> Path:
        """Write the report of a completed run, one self-contained HTML file, to the file `to`. Returns its path.

        Raises:
            OSError: the file cannot be written.
        """
        path = Path(to)
        report = url_path("recipes", recipe, "training-runs", run_id, "report")
        await self._transport.download(Request("GET", report), path)
        return path


def _images_form(label: str, sources: Sequence[tuple[str, Source]], sent: SentCounter) -> AbstractContextManager[Body]:
    return form({"label": label}, "images", [(name, FilePart(source, sent.count)) for name, source in sources])


def _plain(value: Any) -> Any:
    """A value as JSON has it."""
    return value.isoformat() if isinstance(value, datetime) else value
