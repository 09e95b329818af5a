"""Model versions: bundles, activation, thresholds."""

import os
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

from linewatch.errors import BundleRejected, TimedOut
from linewatch.http.request_bodies import bundle_body, tar_of
from linewatch.http.transport import Request
from linewatch.operations.session import Session, url_path
from linewatch.types.results import ModelVersion, Threshold, ThresholdPreview

_READY_POLL = 0.2  # seconds


class ModelVersions(Session):
    """Operations on model versions."""

    async def model_versions(self, recipe: str) -> list[ModelVersion]:
        """The versions of a recipe, newest first."""
        return await self._list(ModelVersion, url_path("recipes", recipe, "model-versions"))

    async def model_version(self, recipe: str, version: int) -> ModelVersion:
        """One version, with its manifest and the thresholds in force.

        Example:
            version = lw.model_version("ring", 1)
            print(version.active, version.threshold.threshold)
        """
        return await self._get(ModelVersion, url_path("recipes", recipe, "model-versions", version))

    async def upload_bundle(
        self, recipe: str, bundle: str | os.PathLike[str], *, wait_ready: bool = True, timeout: float = 120.0
    ) -> ModelVersion:
        """Upload a bundle as the next version of a recipe. Uploading the same bundle again returns its version.

        Args:
            bundle: the folder that training wrote, or an uncompressed tar of it.
            wait_ready: wait until a worker has reproduced its golden scores.
            timeout: seconds for that.

        Raises:
            BundleRejected: a worker rejected it.
            TimedOut: no worker checked it in time.
            OSError: the bundle cannot be read.
        """
        with await self._executor.work(lambda: tar_of(Path(bundle))) as tar:
            path = url_path("recipes", recipe, "model-versions")
            version = await self._upload(ModelVersion, path, partial(bundle_body, tar), key=None)
        give_up = time.monotonic() + timeout
        while wait_ready and version.state == "uploaded":
            if time.monotonic() > give_up:
                raise TimedOut(
                    f"version {version.version} of recipe {recipe!r} was uploaded, but no worker has checked it "
                    f"for {timeout:g} s: is a worker running? See `linewatch doctor`"
                )
            await self._executor.sleep(_READY_POLL)
            version = await self.model_version(recipe, version.version)
        if version.state == "rejected":
            raise BundleRejected(f"version {version.version} of recipe {recipe!r} was rejected: {version.rejection}")
        return version

    async def download_bundle(self, recipe: str, version: int, to: str | os.PathLike[str]) -> Path:
        """Write the bundle of a version, an uncompressed tar, to the file `to`. Returns its path.

        Example:
            lw.download_bundle("ring", 1, "ring-v1.tar")
        """
        path = Path(to)
        await self._transport.download(
            Request("GET", url_path("recipes", recipe, "model-versions", version, "bundle")), path
        )
        return path

    async def activate(self, recipe: str, version: int) -> ModelVersion:
        """Activate a ready version, from the next minibatch on.

        Example:
            lw.activate("ring", 1)
        """
        path = url_path("recipes", recipe, "model-versions", version, "activate")
        return await self._post(ModelVersion, path, harmless_twice=True)

    async def rollback(self, recipe: str) -> ModelVersion:
        """Activate the version that was active before. Returns it."""
        return await self._post(ModelVersion, url_path("recipes", recipe, "model-versions", "rollback"))

    async def set_threshold(
        self,
        recipe: str,
        version: int,
        threshold: float,
        *,
        review_threshold: float | None = None,
        station_id: str | None = None,
        calibration: Mapping[str, Any] | None = None,
        held_out_scores: Sequence[float] | None = None,
        reason: str | None = None,
    ) -> Threshold:
        """Set the threshold of a version, for images that are scored from now on.

        Args:
            threshold: scores at or above it are `ng`; in the unit of the version's scores.
            review_threshold: scores from it up to the threshold are `review`; none by default.
            station_id: only for this station; by default for all stations without a threshold of their own.
            calibration: the calibration that `linewatch calibrate` computed; None if a person chose the threshold.
            held_out_scores: of the good parts of the calibration, at most 20,000; previews then have the expected
                false-reject rate of any other threshold.
            reason: why it is set, for the history and the audit log.
        """
        new = {
            "threshold": threshold,
            "review_threshold": review_threshold,
            "station_id": station_id,
            "calibration": dict(calibration) if calibration is not None else None,
            **({} if held_out_scores is None else {"held_out_scores": list(held_out_scores)}),
            **({} if reason is None else {"reason": reason}),
        }
        return await self._post(Threshold, url_path("recipes", recipe, "model-versions", version, "threshold"), new)

    async def compare_versions(self, recipe: str, a: int, b: int, *, limit: int = 2000) -> dict[str, Any]:
        """Two versions on the same inspections, from stored results, as JSON: pairs of scores, flips, agreement.

        `missing` says which of the newest inspections have no result of a version; `rescore` them to compare more.

        Args:
            limit: the most inspections to compare, 1 to 2000; the newest.
        """
        path = url_path("recipes", recipe, "model-versions", a, "compare", b)
        comparison: dict[str, Any] = await self._transport.json(Request("GET", path, {"limit": limit}))
        return comparison

    async def preview_threshold(
        self,
        recipe: str,
        version: int,
        threshold: float,
        *,
        review_threshold: float | None = None,
        station_id: str | None = None,
        since: datetime | None = None,
    ) -> ThresholdPreview:
        """What a threshold would have changed in past inspections of a version. It sets nothing.

        Example:
            preview = lw.preview_threshold("ring", 1, 0.04)
            print(preview.inspections, "inspections since", preview.since)
            for flip in preview.flips:
                print(flip.count, "from", flip.before, "to", flip.after)

        Args:
            threshold, review_threshold, station_id: as for `set_threshold`.
            since: only images accepted at or after this time, which has a time zone; 30 days ago by default.
        """
        document = {
            "threshold": threshold,
            "review_threshold": review_threshold,
            "station_id": station_id,
            "preview": True,
            "since": since.isoformat() if since is not None else None,
        }
        path = url_path("recipes", recipe, "model-versions", version, "threshold")
        return await self._post(ThresholdPreview, path, document, harmless_twice=True)
