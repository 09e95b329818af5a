"""Activation of re-scoring runs behind a gate, rollback, and challengers."""

from uuid import UUID

from linewatch.errors import Refused
from linewatch.operations.session import Session, url_path
from linewatch.types.rescoring import RescoreRun, RunActivation


class RescoreActions(Session):
    """Operations that put a run's version in force, and on challengers."""

    async def activate_run(
        self,
        run_id: UUID | str,
        *,
        max_new_false_rejects: float | None = None,
        max_new_rejects: float | None = None,
        max_missed: float | None = None,
        max_failures: float | None = None,
        min_reviewed_ok: int | None = None,
        min_reviewed_ng: int | None = None,
        confident: bool = False,
    ) -> RunActivation:
        """Activate the model version and threshold of a run, if the run meets a gate.

        Limit at least one share. A share of no images cannot be measured, so its rule is not met. Activating a
        challenger ends it.

        Args:
            run_id: a completed run, or a challenger that is running.
            max_new_false_rejects: the largest share, 0 to 1, of parts reviewed ok that are ng now and were not before.
            max_new_rejects: the largest share of the images with a verdict before and now that went from ok to ng.
            max_missed: the largest share of the parts reviewed ng that are ok now and were not before.
            max_failures: the largest share of all images that could not be scored.
            min_reviewed_ok, min_reviewed_ng: at least this many parts must have been reviewed ok, or ng.
            confident: compare the upper 95 % confidence bound of each share, not its measured value.

        Raises:
            GateNotMet: a rule is not met; nothing was activated.
        """
        limits = {
            "max_new_false_rejects": max_new_false_rejects,
            "max_new_rejects": max_new_rejects,
            "max_missed": max_missed,
            "max_failures": max_failures,
            "min_reviewed_ok": min_reviewed_ok,
            "min_reviewed_ng": min_reviewed_ng,
        }
        gate = {name: limit for name, limit in limits.items() if limit is not None}
        path = url_path("rescore-runs", run_id, "activate")
        return await self._post(RunActivation, path, {"gate": {**gate, "confident": confident}})

    async def rollback_run(self, run_id: UUID | str) -> RunActivation:
        """Undo the activation of a run: return to the version and thresholds before it."""
        return await self._post(RunActivation, url_path("rescore-runs", run_id, "rollback"))

    async def challenger(self, recipe: str) -> RescoreRun | None:
        """The challenger of a recipe, which is a run; None if it has none."""
        try:
            return await self._get(RescoreRun, url_path("recipes", recipe, "challenger"))
        except Refused as refused:
            if refused.code != "not_found":
                raise
            return None

    async def set_challenger(self, recipe: str, version: int, *, share: float) -> RescoreRun:
        """Let a ready version score a share of live images in the shadow of the active one, until you end it.

        Args:
            share: the share of the images completed from now on, above 0 and up to 1.
        """
        return await self._put(
            RescoreRun, url_path("recipes", recipe, "challenger"), {"model_version": version, "share": share}
        )

    async def end_challenger(self, recipe: str) -> None:
        """End the challenger of a recipe. It finishes the images it has begun; its run and results stay."""
        await self._delete(url_path("recipes", recipe, "challenger"))
