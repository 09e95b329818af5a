"""Re-scoring runs: an archive scored again with another model version or threshold, and what that would change."""

import os
from collections.abc import AsyncGenerator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypedDict
from uuid import UUID

from linewatch.errors import Refused
from linewatch.operations.session import Session, at, key_of
from linewatch.rescoring import RescoreResult, RescoreResultPage, RescoreRunPage
from linewatch.results import RescoreRun
from linewatch.transport import Call
from linewatch.uploads import as_json, texts

_LOOK_SECONDS = 1.0

Verdict = Literal["ok", "ng", "review"]


class Where(TypedDict, total=False):
    """Which stored inspections are scored again: the filters of their listing; an empty one is all of a recipe.

    Moments are RFC 3339 text with a time zone; `max_age_hours` counts back from when the run is made.
    """

    part_id: str
    lot_id: str
    line_id: str
    station_id: str
    batch_id: str
    verdict: str
    effective_verdict: str
    status: str
    since: str
    until: str
    max_age_hours: float


class RescoreRuns(Session):
    """Operations on re-scoring runs."""

    async def rescore(
        self,
        recipe: str,
        model_version: int,
        *,
        where: Where | None = None,
        folder: str | None = None,
        manifest: str | None = None,
        threshold: float | None = None,
        review_threshold: float | None = None,
        recompute: bool = False,
        window: str | None = None,
        time_zone: str = "UTC",
        max_failure_rate: float = 0.1,
        wait: float = 0.0,
        idempotency_key: str | None = None,
    ) -> RescoreRun:
        """Score an archive again. Exactly one of `where`, `folder` and `manifest` says which pictures.

        Example:
            run = lw.rescore("ring", 1, where={"lot_id": "L-204"}, threshold=0.04, wait=60)
            print(run.status, run.counts["ok_to_ng"], run.counts["ng_to_ok"])

        Args:
            where: stored inspections of the recipe; `{}` for all of them.
            folder, manifest: a path or an s3:// URL as the server sees it, below `LINEWATCH_ARCHIVE_ROOTS`.
            threshold, review_threshold: instead of those in force of the version, for every station.
            recompute: run the network also where this version has scored the picture before.
            window: the hours in which it may run, such as "22:00-05:00", by the clock of `time_zone` (its IANA name).
            max_failure_rate: the run is aborted above this share of failures, 0 to 1.
            wait: seconds to wait for its end; after them the run is returned as it stands.
            idempotency_key: the same key with the same request is one run; a key of its own by default.

        Raises:
            Refused: the version is not ready (`model_not_ready`), or the source cannot be read (`source_refused`).
            ValueError: `idempotency_key` is none.
        """
        source = {"where": where, "folder": folder, "manifest": manifest}
        wanted = {
            "recipe": recipe,
            "model_version": model_version,
            "source": {name: value for name, value in source.items() if value is not None},
            "threshold": threshold,
            "review_threshold": review_threshold,
            "recompute": recompute,
            "window": window,
            "time_zone": time_zone,
            "max_failure_rate": max_failure_rate,
        }
        key = key_of(idempotency_key)
        made = await self._upload(RescoreRun, at("rescore-runs"), partial(as_json, wanted), key=key)
        return await self._final_of_accepted(made, at("rescore-runs", made.id), wait) if wait else made

    async def rescore_run(self, run_id: UUID | str, *, wait: float = 0.0) -> RescoreRun:
        """One run, as soon as it has ended or `wait` seconds are over."""
        return await self._final(RescoreRun, at("rescore-runs", run_id), wait)

    async def follow_rescore_run(self, run_id: UUID | str) -> AsyncGenerator[RescoreRun, None]:
        """A run as it stands, about once a second until it has ended; also where the system is away for a while."""
        reader = RescoreRuns(self._transport.tireless())
        wait = 0.0
        while True:
            run = await reader._get(RescoreRun, at("rescore-runs", run_id), wait=wait)
            yield run
            if run.final:
                return
            wait = _LOOK_SECONDS

    async def rescore_runs(
        self, *, recipe: str | None = None, status: str | None = None, page_size: int = 100
    ) -> AsyncGenerator[RescoreRun, None]:
        """Runs and challengers, newest first."""
        asked = {"limit": page_size, **texts({"recipe": recipe, "status": status})}
        async for page in self._pages(RescoreRunPage, at("rescore-runs"), asked):
            for one in page.items:
                yield one

    async def pause_run(self, run_id: UUID | str) -> RescoreRun:
        """Let a run rest: workers stop at their next minibatch. Pausing it twice changes nothing."""
        return await self._turned(run_id, "pause", ("paused",))

    async def resume_run(self, run_id: UUID | str) -> RescoreRun:
        """Let a paused run go on where it was. Resuming it twice changes nothing."""
        return await self._turned(run_id, "resume", ("queued", "running"))

    async def cancel_run(self, run_id: UUID | str) -> RescoreRun:
        """End a run for good; what has results keeps them. Cancelling it twice changes nothing.

        Raises:
            Refused: it has ended otherwise (`invalid_transition`).
        """
        return await self._turned(run_id, "cancel", ("cancelled",))

    async def _turned(self, run_id: UUID | str, verb: str, wanted: tuple[str, ...]) -> RescoreRun:
        """A transition; a try that broke may have made it already."""
        try:
            return await self._post(RescoreRun, at("rescore-runs", run_id, verb), harmless_twice=True)
        except Refused as refused:
            if refused.code != "invalid_transition":
                raise
            run = await self.rescore_run(run_id)
            if run.status not in wanted:
                raise
            return run

    async def rescore_results(
        self,
        run_id: UUID | str,
        *,
        verdict: Verdict | None = None,
        before_verdict: Verdict | None = None,
        line_id: str | None = None,
        station_id: str | None = None,
        error_code: str | None = None,
        page_size: int = 100,
    ) -> AsyncGenerator[RescoreResult, None]:
        """The pictures of a run that have results, in the order of its source."""
        asked = {"verdict": verdict, "before_verdict": before_verdict, "line_id": line_id, "station_id": station_id}
        params = {"limit": page_size, **texts({**asked, "error_code": error_code})}
        async for page in self._pages(RescoreResultPage, at("rescore-runs", run_id, "results"), params):
            for one in page.items:
                yield one

    async def rescore_flips(
        self,
        run_id: UUID | str,
        *,
        before: Verdict | None = None,
        after: Verdict | None = None,
        page_size: int = 100,
    ) -> AsyncGenerator[RescoreResult, None]:
        """The pictures of a run whose verdict would change, in the order of its source; from one verdict to another."""
        params = {"limit": page_size, **texts({"from": before, "to": after})}
        async for page in self._pages(RescoreResultPage, at("rescore-runs", run_id, "flips"), params):
            for one in page.items:
                yield one

    async def rescore_report(self, run_id: UUID | str) -> Mapping[str, Any]:
        """What a run would change, in numbers, as its report has it in JSON."""
        report: Mapping[str, Any] = await self._transport.json(Call("GET", at("rescore-runs", run_id, "report")))
        return report

    async def download_rescore_report(self, run_id: UUID | str, to: str | os.PathLike[str]) -> Path:
        """Write the report of a run as one HTML page that needs nothing else to the file `to`; its path is returned."""
        path = Path(to)
        await self._transport.download(Call("GET", at("rescore-runs", run_id, "report"), {"format": "html"}), path)
        return path

    async def export_rescore_run(
        self,
        run_id: UUID | str,
        to: str | os.PathLike[str],
        *,
        format: Literal["csv", "parquet"] = "csv",  # noqa: A002 - as it is called in HTTP
        flips: bool = False,
    ) -> Path:
        """Write the results of a run to the file `to`, whole or not at all; its path is returned.

        Args:
            flips: only those whose verdict would change.
        """
        path = Path(to)
        asked = {"format": format, **({"flips": "true"} if flips else {})}
        await self._transport.download(Call("GET", at("rescore-runs", run_id, "export"), asked), path)
        return path
