"""`linewatch.Client`: a running system from Python. It needs httpx and pydantic, none of the server's code."""

import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self, TypedDict, TypeVar, Unpack
from urllib.parse import quote
from uuid import UUID

import httpx
from pydantic import ValidationError

from linewatch.errors import BundleRejected, LinewatchError, Refused, TimedOut
from linewatch.results import (
    Batch,
    Inspection,
    InspectionPage,
    ModelVersion,
    Recipe,
    Result,
    Threshold,
    ThresholdPreview,
)
from linewatch.transport import Body, Transport
from linewatch.uploads import Counter, Part, Picture, form, opened, rewound, storable, tar_of, texts

DEFAULT_URL = "http://127.0.0.1:8000"

LONGEST_WAIT = 30.0  # seconds that one request waits at the server; longer waits are several
_READY_POLL = 0.2  # seconds

AnyResult = TypeVar("AnyResult", bound=Result)
AnyFinal = TypeVar("AnyFinal", Inspection, Batch)


class Fields(TypedDict, total=False):
    """What may be said of a picture; None is as good as nothing. Times need a time zone."""

    recipe: str | None
    external_id: str | None
    part_id: str | None
    lot_id: str | None
    line_id: str | None
    station_id: str | None
    captured_at: datetime | None
    priority: Literal["live", "bulk"] | None
    deadline_ms: int | None
    batch_id: UUID | str | None
    callback_url: str | None
    metadata: Mapping[str, Any] | None


class Filters(TypedDict, total=False):
    """What a listing may be narrowed to; `since` and `until` mean the moment at which a picture was accepted."""

    recipe: str | None
    part_id: str | None
    lot_id: str | None
    line_id: str | None
    station_id: str | None
    batch_id: UUID | str | None
    verdict: Literal["ok", "ng", "review"] | None
    status: Literal["queued", "running", "completed", "failed", "cancelled"] | None
    since: datetime | None
    until: datetime | None


class Client:
    """A running system. Use it in a `with` block; it is safe to use from several threads.

    Every method raises `Refused` where the system says no, with a stable `code`, and `Unreachable` where no answer
    comes; both are a `LinewatchError`. Answers 429 and 503 are waited out for up to `patience` seconds.
    """

    def __init__(
        self,
        url: str = DEFAULT_URL,
        *,
        api_key: str | None = None,
        timeout: float = 60.0,
        patience: float = 60.0,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        """Nothing is sent yet.

        Args:
            url: of the api.
            api_key: `lw_…`, where the system asks for one.
            timeout: seconds that an answer may take, beyond what was asked to be waited.
            patience: seconds for which answers 429 and 503 are tried again.
            transport: replaces the network, for tests.

        Raises:
            BadAddress: `url` is not an address.
        """
        self._transport = Transport(url, api_key, timeout=timeout, patience=patience, inner=transport)
        self.url = self._transport.url

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give up the connections."""
        self._transport.close()

    def ready(self) -> bool:
        """Whether the system can accept pictures now. Asked once."""
        return self._transport.status("/readyz") == httpx.codes.OK

    # Pictures

    def submit(self, picture: Picture, *, wait: float = 0.0, **fields: Unpack[Fields]) -> Inspection:
        """Hand in one picture. When this returns it is durable: it will get a result.

        Args:
            picture: JPEG, PNG, BMP, WebP or TIFF; its file name becomes `external_id` where none is given.
            wait: seconds to wait for the result; after them the inspection is returned as it stands.

        Raises:
            OSError: the file cannot be read.
        """
        name, source = opened(picture)
        made = self._post(Inspection, _at("inspections"), lambda: form(fields, "image", [(name, Part(source))]))
        return self.inspection(made.id, wait=wait) if wait else made

    def submit_batch(
        self,
        pictures: Iterable[str | os.PathLike[str]] | Mapping[str, Picture],
        *,
        items: Mapping[str, Fields] | None = None,
        wait: float = 0.0,
        progress: Callable[[int], None] | None = None,
        **fields: Unpack[Fields],
    ) -> Batch:
        """Hand in a burst in one request. A picture that is refused is in `errors` and harms no other.

        Args:
            pictures: paths, whose last part becomes `external_id`; or pictures by the name that becomes it.
            items: fields of single pictures, by those names.
            wait: seconds to wait until the batch is final; after them it is returned as it stands.
            progress: is told how many pictures have been sent.
            fields: of all pictures.

        Raises:
            Refused: none of the pictures was accepted, or there are too many for one request.
            OSError: a file cannot be read.
            ValueError: there are no pictures.
        """
        named = pictures.items() if isinstance(pictures, Mapping) else [(Path(path).name, path) for path in pictures]
        sources = [(storable(name), opened(picture)[1]) for name, picture in named]
        if not sources:
            raise ValueError("a burst needs at least one picture")

        def body() -> Body:
            sent = Counter(progress)
            burst = form(fields, "images", [(name, Part(source, sent.count)) for name, source in sources])
            if items:
                burst["data"]["items"] = json.dumps({name: texts(own) for name, own in items.items()})
            return burst

        made = self._post(Batch, _at("batches"), body)
        if not wait:
            return made
        final = self.batch(made.id, wait=wait)
        return final.model_copy(update={"inspections": made.inspections, "errors": made.errors})

    def inspection(self, inspection_id: UUID | str, *, wait: float = 0.0) -> Inspection:
        """One inspection, as soon as it is final or `wait` seconds are over."""
        return self._final(Inspection, _at("inspections", inspection_id), wait)

    def batch(self, batch_id: UUID | str, *, wait: float = 0.0) -> Batch:
        """One batch, as soon as it is final or `wait` seconds are over."""
        return self._final(Batch, _at("batches", batch_id), wait)

    def inspections(self, *, page_size: int = 100, **filters: Unpack[Filters]) -> Iterator[Inspection]:
        """All inspections that match, newest first; pages of 1 to 1000 are fetched as they are needed."""
        given = texts(filters)
        cursor: dict[str, str] = {}
        while True:
            page = self._get(InspectionPage, _at("inspections"), limit=page_size, **given, **cursor)
            yield from page.items
            if page.next_cursor is None:
                return
            cursor = {"cursor": page.next_cursor}

    def image(self, inspection_id: UUID | str) -> bytes:
        """The picture as it was handed in, encoded."""
        return self._transport.content(_at("inspections", inspection_id, "image"))

    def anomaly_map(self, inspection_id: UUID | str) -> bytes:
        """Where the picture is unlike good parts: a `.npy` file, float32, (rows, columns) of the detector's grid.

        Its cells divide the picture evenly. Read it with `numpy.load(io.BytesIO(...))`.
        """
        return self._transport.content(_at("inspections", inspection_id, "anomaly-map"))

    def heatmap(self, inspection_id: UUID | str) -> bytes:
        """The picture as PNG with the heat laid over it, on a scale that is fixed by the inspection's threshold."""
        return self._transport.content(_at("inspections", inspection_id, "heatmap"))

    # Recipes and their model versions

    def recipes(self) -> list[Recipe]:
        """All recipes, by name."""
        return self._list(Recipe, _at("recipes"))

    def create_recipe(self, name: str, *, exist_ok: bool = False) -> Recipe:
        """A new recipe; with `exist_ok` the one that is there already."""
        try:
            return self._post(Recipe, _at("recipes"), lambda: {"json": {"name": name}})
        except Refused as refused:
            if not exist_ok or refused.code != "recipe_exists":
                raise
        return self._get(Recipe, _at("recipes", name))

    def model_versions(self, recipe: str) -> list[ModelVersion]:
        """The versions of a recipe, newest first."""
        return self._list(ModelVersion, _at("recipes", recipe, "model-versions"))

    def model_version(self, recipe: str, version: int) -> ModelVersion:
        """One version, with its manifest and the thresholds in force."""
        return self._get(ModelVersion, _at("recipes", recipe, "model-versions", version))

    def upload_bundle(
        self, recipe: str, bundle: str | os.PathLike[str], *, wait_ready: bool = True, timeout: float = 120.0
    ) -> ModelVersion:
        """Enter a bundle as the next version of a recipe; the same bundle twice is one version.

        Args:
            bundle: the folder that training wrote, or an uncompressed tar of it.
            wait_ready: wait until a worker has reproduced its golden scores.
            timeout: seconds for that.

        Raises:
            BundleRejected: a worker did not take it.
            TimedOut: no worker has looked at it in time.
            OSError: it cannot be read.
        """
        with tar_of(Path(bundle)) as tar:
            made = self._post(ModelVersion, _at("recipes", recipe, "model-versions"), lambda: rewound(tar))
        give_up = time.monotonic() + timeout
        while wait_ready and made.state == "uploaded":
            if time.monotonic() > give_up:
                raise TimedOut(
                    f"version {made.version} of recipe {recipe!r} was uploaded, but no worker has checked it "
                    f"for {timeout:g} s: does one run? See `linewatch doctor`"
                )
            time.sleep(_READY_POLL)
            made = self.model_version(recipe, made.version)
        if made.state == "rejected":
            raise BundleRejected(f"version {made.version} of recipe {recipe!r} was rejected: {made.rejection}")
        return made

    def download_bundle(self, recipe: str, version: int, to: str | os.PathLike[str]) -> Path:
        """Write the bundle of a version, an uncompressed tar, to the file `to`; its path is returned."""
        path = Path(to)
        self._transport.download(_at("recipes", recipe, "model-versions", version, "bundle"), path)
        return path

    def activate(self, recipe: str, version: int) -> ModelVersion:
        """Let a ready version score from the next minibatch on."""
        return self._post(ModelVersion, _at("recipes", recipe, "model-versions", version, "activate"))

    def rollback(self, recipe: str) -> ModelVersion:
        """Go back to the version that was active before; it is returned."""
        return self._post(ModelVersion, _at("recipes", recipe, "model-versions", "rollback"))

    def set_threshold(
        self,
        recipe: str,
        version: int,
        threshold: float,
        *,
        review_threshold: float | None = None,
        station_id: str | None = None,
        calibration: Mapping[str, Any] | None = None,
    ) -> Threshold:
        """Set the threshold of a version for what is scored from now on.

        Args:
            threshold: scores at or above it are `ng`; in the unit of the version's scores.
            review_threshold: scores from it up to the threshold are `review`; none by default.
            station_id: the one station that it is for; all without one of their own by default.
            calibration: where it comes from, as `core.vision.calibration` makes it; none where a person chose it.
        """
        new = {
            "threshold": threshold,
            "review_threshold": review_threshold,
            "station_id": station_id,
            "calibration": dict(calibration) if calibration is not None else None,
        }
        path = _at("recipes", recipe, "model-versions", version, "threshold")
        return self._post(Threshold, path, lambda: {"json": new})

    def preview_threshold(
        self,
        recipe: str,
        version: int,
        threshold: float,
        *,
        review_threshold: float | None = None,
        station_id: str | None = None,
        since: datetime | None = None,
    ) -> ThresholdPreview:
        """What a threshold would have changed among past inspections of a version; nothing is set.

        Args:
            threshold, review_threshold, station_id: as for `set_threshold`.
            since: the moment from which on accepted pictures count, with a time zone; 30 days ago by default.
        """
        asked = {
            "threshold": threshold,
            "review_threshold": review_threshold,
            "station_id": station_id,
            "preview": True,
            "since": since.isoformat() if since is not None else None,
        }
        path = _at("recipes", recipe, "model-versions", version, "threshold")
        return self._post(ThresholdPreview, path, lambda: {"json": asked})

    def _get(self, kind: type[AnyResult], path: str, **params: Any) -> AnyResult:
        return self._read(kind, self._transport.get(path, **params))

    def _post(self, kind: type[AnyResult], path: str, body: Callable[[], Body] = dict) -> AnyResult:
        return self._read(kind, self._transport.post(path, body))

    def _list(self, kind: type[AnyResult], path: str) -> list[AnyResult]:
        answer = self._transport.get(path)
        items = answer.get("items") if isinstance(answer, dict) else None
        return [self._read(kind, item) for item in items or []]

    def _final(self, kind: type[AnyFinal], path: str, wait: float) -> AnyFinal:
        give_up = time.monotonic() + wait
        while True:
            left = max(0.0, give_up - time.monotonic())
            found = self._get(kind, path, wait=min(left, LONGEST_WAIT))
            if found.final or left == 0:
                return found

    def _read(self, kind: type[AnyResult], answer: Any) -> AnyResult:
        try:
            return kind.model_validate(answer)
        except ValidationError as error:
            fault = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(str(step) for step in fault["loc"])
            raise LinewatchError(
                f"{self.url} answers with a {kind.__name__} that this client cannot read ({where}: {fault['msg']}): "
                "are they of the same version?"
            ) from error


def _at(*steps: object) -> str:
    """The path of a thing; what was given as a name cannot lead elsewhere."""
    return "/".join(["/v1", *(quote(str(step), safe="") for step in steps)])
