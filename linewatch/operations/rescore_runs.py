"""Re-scoring runs: archives scored again, and what would change by it."""

import os
from collections.abc import AsyncGenerator
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypedDict, Unpack
from uuid import UUID

from linewatch.http.request_bodies import as_json, as_text
from linewatch.http.transport import Request
from linewatch.operations.session import Session, key_or_new, url_path
from linewatch.types.rescoring import RescoreResult, RescoreResultPage, RescoreRun, RescoreRunPage

Verdict = Literal["ok", "ng", "review"]


class Where(TypedDict, total=False):
    """Which stored inspections a run is over; the filters of `inspections`. None is as good as nothing.

    `max_age_hours` is as `since`, counted back from the moment at which the run is made.
    """

    part_id: str | None
    lot_id: str | None
    line_id: str | None
    station_id: str | None
    batch_id: UUID | str | None
    verdict: Verdict | None
    effective_verdict: Verdict | None
    status: Literal["completed", "failed", "cancelled"] | None
    since: datetime | str | None
    until: datetime | str | None
    max_age_hours: float | None


class RunFields(TypedDict, total=False):
    """What a run may be asked for with, beside its recipe and its model version; see `rescore`."""

    where: Where | None
    folder: str | None
    manifest: str | None
    threshold: float | None
    review_threshold: float | None
    recompute: bool
    window: str | None
    time_zone: str | None
    max_failure_rate: float | None


class ResultFilters(TypedDict, total=False):
    """What the results of a run may be narrowed to; `verdict` is the run's, `before_verdict` the recorded one."""

    verdict: Verdict | None
    before_verdict: Verdict | None
    line_id: str | None
    station_id: str | None
    error_code: str | None


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
        time_zone: str | None = None,
        max_failure_rate: float | None = None,
        wait: float = 0.0,
        idempotency_key: str | None = None,
    ) -> RescoreRun:
        """Score an archive again with a model version. Nothing that is stored of an inspection is changed.

        Example:
            run = lw.rescore("ring", 1, where={"lot_id": "L-204"}, wait=60)
            print(run.status, run.counts["ok_to_ng"], run.counts["ng_to_ok"])

        Args:
            where: stored inspections of the recipe; `{}` is all of them. Exactly one source must be named.
            folder: a folder or an `s3://` prefix of images, as the server sees it, below its archive roots.
            manifest: a JSON lines or CSV file that names images, likewise.
            threshold, review_threshold: judge with these, at every station, instead of those of the version.
            recompute: run the network also where this version has scored an image before.
            window, time_zone: the hours in which it may run, like `22:00-05:00`, in an IANA zone (UTC by default).
            max_failure_rate: the run is aborted above this share, 0 to 1, of failures; 0.1 by default.
            wait: seconds to wait until it is final; after them it is returned as it stands.
            idempotency_key: the same key with the same request is one run, as for `submit`.

        Raises:
            ValueError: `idempotency_key` is none.
        """
        asked = run_request(
            recipe,
            model_version,
            where=where,
            folder=folder,
            manifest=manifest,
            threshold=threshold,
            review_threshold=review_threshold,
            recompute=recompute,
            window=window,
            time_zone=time_zone,
            max_failure_rate=max_failure_rate,
        )
        path = url_path("rescore-runs")
        made = await self._upload(RescoreRun, path, partial(as_json, asked), key=key_or_new(idempotency_key))
        return await self._final_of_accepted(made, url_path("rescore-runs", made.id), wait) if wait else made

    async def rescore_run(self, run_id: UUID | str, *, wait: float = 0.0) -> RescoreRun:
        """One run, as soon as it is final or `wait` seconds are over."""
        return await self._final(RescoreRun, url_path("rescore-runs", run_id), wait)

    async def follow_run(self, run_id: UUID | str, *, every: float = 1.0) -> AsyncGenerator[RescoreRun, None]:
        """The run, now and every `every` seconds until it is final. Outages of the system are waited for.

        Example:
            made = lw.rescore("ring", 1, where={}, threshold=0.04)
            for run in lw.follow_run(made.id):
                print(run.status, run.progress.done)
        """
        reader = RescoreRuns(self._transport.tireless())
        wait = 0.0
        while True:
            run = await reader._get(RescoreRun, url_path("rescore-runs", run_id), wait=wait)
            yield run
            if run.final:
                return
            wait = every

    async def rescore_runs(
        self, *, recipe: str | None = None, status: str | None = None, page_size: int = 100
    ) -> AsyncGenerator[RescoreRun, None]:
        """All runs that match, newest first, challengers among them; pages are fetched as they are needed."""
        params = {"limit": page_size, **as_text({"recipe": recipe, "status": status})}
        async for page in self._pages(RescoreRunPage, url_path("rescore-runs"), params):
            for one in page.items:
                yield one

    async def pause_run(self, run_id: UUID | str) -> RescoreRun:
        """Pause a run: workers stop at their next minibatch and keep what they have scored."""
        return await self._post(RescoreRun, url_path("rescore-runs", run_id, "pause"))

    async def resume_run(self, run_id: UUID | str) -> RescoreRun:
        """Let a paused run go on where it stopped."""
        return await self._post(RescoreRun, url_path("rescore-runs", run_id, "resume"))

    async def cancel_run(self, run_id: UUID | str) -> RescoreRun:
        """End a run before it is done; its results stay. It cannot be resumed."""
        return await self._post(RescoreRun, url_path("rescore-runs", run_id, "cancel"))

    async def rescore_results(
        self, run_id: UUID | str, *, page_size: int = 100, **filters: Unpack[ResultFilters]
    ) -> AsyncGenerator[RescoreResult, None]:
        """What a run made of its images, in the order of its source."""
        params = {"limit": page_size, **as_text(filters)}
        async for page in self._pages(RescoreResultPage, url_path("rescore-runs", run_id, "results"), params):
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
        """The images whose verdict is another than before, from the verdict `before` to the verdict `after`."""
        params = {"limit": page_size, **as_text({"from": before, "to": after})}
        async for page in self._pages(RescoreResultPage, url_path("rescore-runs", run_id, "flips"), params):
            for one in page.items:
                yield one

    async def rescore_report(self, run_id: UUID | str) -> dict[str, Any]:
        """What would change: the report of a run, as JSON has it."""
        report: dict[str, Any] = await self._transport.json(Request("GET", url_path("rescore-runs", run_id, "report")))
        return report

    async def download_rescore_report(
        self,
        run_id: UUID | str,
        to: str | os.PathLike[str],
        *,
        format: Literal["html", "json"] = "html",  # noqa: A002 - as it is called in HTTP
    ) -> Path:
        """Write the report of a run to the file `to`, whole or not at all; HTML needs nothing beside it to be read.

        Raises:
            OSError: the file cannot be written.
        """
        return await self._written(run_id, "report", to, {"format": format})

    async def export_rescore_results(
        self,
        run_id: UUID | str,
        to: str | os.PathLike[str],
        *,
        format: Literal["csv", "parquet"] = "csv",  # noqa: A002 - as it is called in HTTP
        flips: bool = False,
    ) -> Path:
        """Write all results of a run to the file `to`, one a row, whole or not at all; `flips`: only those.

        Raises:
            OSError: the file cannot be written.
        """
        return await self._written(run_id, "export", to, {"format": format, **({"flips": "true"} if flips else {})})

    async def _written(self, run_id: UUID | str, what: str, to: str | os.PathLike[str], params: dict[str, str]) -> Path:
        path = Path(to)
        await self._transport.download(Request("GET", url_path("rescore-runs", run_id, what), params), path)
        return path


def run_request(recipe: str, model_version: int | None, **fields: Unpack[RunFields]) -> dict[str, Any]:
    """A run as it is asked for; what is None is left out."""
    where = fields.get("where")
    sources: dict[str, Any] = {name: fields.get(name) for name in ("folder", "manifest")}
    sources["where"] = None if where is None else _plain(where)
    others = {name: value for name, value in fields.items() if name not in sources}
    return _given({"recipe": recipe, "model_version": model_version, "source": _given(sources), **others})


def _given(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}


def _plain(where: Where) -> dict[str, Any]:
    """A filter as JSON has it."""
    age = where.get("max_age_hours")
    return {**as_text(where), **({} if age is None else {"max_age_hours": age})}
