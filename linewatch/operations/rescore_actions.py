"""From a re-scoring run to action: activation behind a gate, one step back, and challengers."""

from uuid import UUID

from linewatch.errors import Refused
from linewatch.operations.session import Session, url_path
from linewatch.types.rescoring import RescoreRun, RunActivation


class RescoreActions(Session):
    """Operations that follow from what a run has shown."""

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
        """Let what a run assessed score: its model version, and the threshold that it judged with, if it meets a gate.

        At least one share must be limited; a share of nothing cannot be judged and is not met. A challenger is ended.

        Args:
            run_id: a completed run, or a challenger that is running.
            max_new_false_rejects: of the parts reviewed ok: the share, 0 to 1, that is ng now and was not before.
            max_new_rejects: of the images with a verdict before and now: the share that went from ok to ng.
            max_missed: of the parts reviewed ng: the share that is ok now and was not before.
            max_failures: of all images: the share that could not be scored.
            min_reviewed_ok, min_reviewed_ng: at least this many parts must have been reviewed ok, or ng.
            confident: judge each share by its upper bound with 95 % confidence, not as it was measured.

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
        """Go one step back behind the activation of a run: to the version and thresholds in force before."""
        return await self._post(RunActivation, url_path("rescore-runs", run_id, "rollback"))

    async def challenger(self, recipe: str) -> RescoreRun | None:
        """The challenger of a recipe, as the run that it is; None where it has none."""
        try:
            return await self._get(RescoreRun, url_path("recipes", recipe, "challenger"))
        except Refused as refused:
            if refused.code != "not_found":
                raise
            return None

    async def set_challenger(self, recipe: str, version: int, *, share: float) -> RescoreRun:
        """Let a ready version score a share of live images in the active one's shadow, until it is ended.

        Args:
            share: of the images that are completed from now on, above 0 and up to 1.
        """
        return await self._put(
            RescoreRun, url_path("recipes", recipe, "challenger"), {"model_version": version, "share": share}
        )

    async def end_challenger(self, recipe: str) -> None:
        """End the challenger of a recipe: it finishes what it has in hand; its run and results stay."""
        await self._delete(url_path("recipes", recipe, "challenger"))
