"""Re-scoring runs: score archives again and see what would change."""

import os
from collections.abc import AsyncGenerator, Sequence
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypedDict, Unpack
from uuid import UUID

from linewatch.http.request_bodies import as_json, as_text
from linewatch.http.transport import Request
from linewatch.operations.session import Session, key_or_new, url_path
from linewatch.types.rescoring import RescoreResult, RescoreResultPage, RescoreRun, RescoreRunPage, SourceCount

Verdict = Literal["ok", "ng", "review"]


class Where(TypedDict, total=False):
    """The stored inspections of a run, by the filters of `inspections`. None is the same as absent.

    `ids` are 1 to 1,000 inspections; those of another recipe are left out.
    `max_age_hours` is like `since`, counted back from the creation of the run.
    """

    ids: Sequence[UUID | str] | None
    part_id: str | None
    lot_id: str | None
    line_id: str | None
    station_id: str | None
    batch_id: UUID | str | None
    verdict: Verdict | None
    effective_verdict: Verdict | None
    reviewed: Literal["ok", "ng", "any", "none"] | None
    status: Literal["completed", "failed", "cancelled"] | None
    since: datetime | str | None
    until: datetime | str | None
    max_age_hours: float | None


class RunFields(TypedDict, total=False):
    """The options of a run, besides its recipe and model version; see `rescore`."""

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
    """Filters of the results of a run; `verdict` is the run's, `before_verdict` the recorded one."""

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
        """Score an archive again with a model version. It changes no stored inspection.

        Example:
            run = lw.rescore("ring", 1, where={"lot_id": "L-204"}, wait=60)
            print(run.status, run.counts["ok_to_ng"], run.counts["ng_to_ok"])

        Args:
            where: stored inspections of the recipe; `{}` is all of them. Give exactly one of the three sources.
            folder: a folder or an `s3://` prefix of images, as the server sees it, below its archive roots.
            manifest: a JSON lines or CSV file that lists images, as the server sees it.
            threshold, review_threshold: used at every station instead of the version's.
            recompute: score images again that this version has already scored.
            window, time_zone: the hours in which it may run, like `22:00-05:00`, in an IANA zone (UTC by default).
            max_failure_rate: abort the run above this share of failures, 0 to 1; 0.1 by default.
            wait: seconds to wait until it is final; then it is returned in its current state.
            idempotency_key: the same key with the same request is one run, as for `submit`.

        Raises:
            ValueError: `idempotency_key` is not a valid key.
        """
        document = run_request(
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
        run = await self._upload(RescoreRun, path, partial(as_json, document), key=key_or_new(idempotency_key))
        return await self._final_of_accepted(run, url_path("rescore-runs", run.id), wait) if wait else run

    async def count_rescore(
        self,
        recipe: str,
        model_version: int,
        *,
        where: Where | None = None,
        folder: str | None = None,
        manifest: str | None = None,
    ) -> SourceCount:
        """The number of images that a run would have; the arguments are those of `rescore`. Creates nothing.

        Example:
            counted = lw.count_rescore("ring", 1, where={"lot_id": "L-204"})
            print(counted.images, "images" if counted.exact else "images or more")
        """
        document = run_request(recipe, model_version, where=where, folder=folder, manifest=manifest)
        return await self._post(SourceCount, url_path("rescore-runs", "count"), document, harmless_twice=True)

    async def rescore_run(self, run_id: UUID | str, *, wait: float = 0.0) -> RescoreRun:
        """One run, as soon as it is final or after `wait` seconds."""
        return await self._final(RescoreRun, url_path("rescore-runs", run_id), wait)

    async def follow_run(self, run_id: UUID | str, *, every: float = 1.0) -> AsyncGenerator[RescoreRun, None]:
        """The run, now and every `every` seconds until it is final. It waits while the system is down.

        Example:
            run = lw.rescore("ring", 1, where={}, threshold=0.04)
            for snapshot in lw.follow_run(run.id):
                print(snapshot.status, snapshot.progress.done)
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
        """All matching runs, newest first, including challengers. Pages are fetched on demand."""
        params = {"limit": page_size, **as_text({"recipe": recipe, "status": status})}
        async for page in self._pages(RescoreRunPage, url_path("rescore-runs"), params):
            for run in page.items:
                yield run

    async def pause_run(self, run_id: UUID | str) -> RescoreRun:
        """Pause a run. Workers stop after their current minibatch and keep their results."""
        return await self._post(RescoreRun, url_path("rescore-runs", run_id, "pause"))

    async def resume_run(self, run_id: UUID | str) -> RescoreRun:
        """Resume a paused run where it stopped."""
        return await self._post(RescoreRun, url_path("rescore-runs", run_id, "resume"))

    async def cancel_run(self, run_id: UUID | str) -> RescoreRun:
        """Cancel a run. Its results so far are kept; it cannot be resumed."""
        return await self._post(RescoreRun, url_path("rescore-runs", run_id, "cancel"))

    async def rescore_results(
        self, run_id: UUID | str, *, page_size: int = 100, **filters: Unpack[ResultFilters]
    ) -> AsyncGenerator[RescoreResult, None]:
        """The results of a run, in the order of its source."""
        params = {"limit": page_size, **as_text(filters)}
        async for page in self._pages(RescoreResultPage, url_path("rescore-runs", run_id, "results"), params):
            for result in page.items:
                yield result

    async def rescore_flips(
        self,
        run_id: UUID | str,
        *,
        before: Verdict | None = None,
        after: Verdict | None = None,
        page_size: int = 100,
    ) -> AsyncGenerator[RescoreResult, None]:
        """The images whose verdict would change, from the verdict `before` to the verdict `after`."""
        params = {"limit": page_size, **as_text({"from": before, "to": after})}
        async for page in self._pages(RescoreResultPage, url_path("rescore-runs", run_id, "flips"), params):
            for result in page.items:
                yield result

    async def rescore_report(self, run_id: UUID | str) -> dict[str, Any]:
        """The report of a run as JSON: what would change."""
        report: dict[str, Any] = await self._transport.json(Request("GET", url_path("rescore-runs", run_id, "report")))
        return report

    async def download_rescore_report(
        self,
        run_id: UUID | str,
        to: str | os.PathLike[str],
        *,
        format: Literal["html", "json"] = "html",  # noqa: A002 - as it is called in HTTP
    ) -> Path:
        """Write the report of a run to the file `to`, complete or not at all; HTML is one self-contained file.

        Raises:
            OSError: the file cannot be written.
        """
        return await self._download(run_id, "report", to, {"format": format})

    async def export_rescore_results(
        self,
        run_id: UUID | str,
        to: str | os.PathLike[str],
        *,
        format: Literal["csv", "parquet"] = "csv",  # noqa: A002 - as it is called in HTTP
        flips: bool = False,
    ) -> Path:
        """Write all results of a run, or only the flips, to the file `to`, one a row, complete or not at all.

        Raises:
            OSError: the file cannot be written.
        """
        return await self._download(run_id, "export", to, {"format": format, **({"flips": "true"} if flips else {})})

    async def _download(
        self, run_id: UUID | str, what: str, to: str | os.PathLike[str], params: dict[str, str]
    ) -> Path:
        path = Path(to)
        await self._transport.download(Request("GET", url_path("rescore-runs", run_id, what), params), path)
        return path


def run_request(recipe: str, model_version: int | None, **fields: Unpack[RunFields]) -> dict[str, Any]:
    """The JSON of a request for a run; None is left out."""
    where = fields.get("where")
    sources: dict[str, Any] = {name: fields.get(name) for name in ("folder", "manifest")}
    sources["where"] = None if where is None else _plain(where)
    others = {name: value for name, value in fields.items() if name not in sources}
    return _without_none({"recipe": recipe, "model_version": model_version, "source": _without_none(sources), **others})


def _without_none(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}


def _plain(where: Where) -> dict[str, Any]:
    """The filters as JSON."""
    ids, age = where.get("ids"), where.get("max_age_hours")
    others = {} if ids is None else {"ids": [str(one) for one in ids]}
    return {**as_text(where), **others, **({} if age is None else {"max_age_hours": age})}
