"""The spans of the images of a minibatch, each in the trace of its upload.

    upload ─┬─ queue      from acceptance to the claim
            └─ inspect    from the claim to the result; the traces of its webhooks go on from here
                 ├─ load, decode
                 ├─ score    of the minibatch
                 └─ finish   of the minibatch: writing the results

A minibatch scores its images together. The `score` span of the first traced image stands for all of them: it links to
the other images, and their `score` spans link to it.
"""

import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self
from uuid import UUID

from core.queue.claiming import Claim
from core.queue.finishing import Outcome
from core.tracing import traces
from core.tracing.traces import Attributes
from worker.pipeline.preparing import ClaimedImage

if TYPE_CHECKING:
    from core.tracing.exporting import Span


@dataclass(frozen=True)
class Times:
    """When a group of images was scored and written, on the clock `time.perf_counter`."""

    score: float
    scored: float
    finish: float
    finished: float


class ImageSpans:
    """The spans of claims, from the claim to the end of a `with` block. Claims without a trace have none.

    Attributes:
        contexts: where the traces of traced claims go on from, by inspection, also while this process traces nothing.
    """

    def __init__(self, claims: Sequence[Claim]) -> None:
        self.contexts: dict[UUID, str | None] = {}
        self._spans: dict[UUID, Span] = {}
        for claim in claims:
            if claim.trace_context is not None:
                self.contexts[claim.id] = claim.trace_context
                self._begin(claim)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        """End the spans of claims that were released."""
        for span in self._spans.values():
            span.end(time.perf_counter(), error="released" if error is None else type(error).__name__)

    def end_unscored(self, outcomes: Sequence[Outcome], written: Collection[UUID]) -> None:
        """End the spans of claims that have an outcome without being scored."""
        for outcome in outcomes:
            if span := self._spans.pop(outcome.id, None):
                _end(span, outcome, time.perf_counter(), written)

    def end(
        self,
        group: Sequence[ClaimedImage],
        outcomes: Sequence[Outcome],
        times: Times,
        written: Collection[UUID],
        *,
        label: tuple[str, str],
    ) -> None:
        """Record how a group was inspected, and end its spans.

        Args:
            outcomes: in the order of the group.
            written: the inspections that were written; other claims were lost.
            label: the name of the recipe and the number of the version.
        """
        if not self._spans:
            return
        traced = [
            (image, outcome, span)
            for image, outcome in zip(group, outcomes, strict=True)
            if (span := self._spans.pop(outcome.id, None)) is not None
        ]
        for image, _, span in traced:
            _record_preparing(span, image)
        scored = [span for image, _, span in traced if image.image is not None]
        model = {"linewatch.recipe": label[0], "linewatch.model.version": label[1]}
        _record_scoring(scored, times, {**model, "linewatch.minibatch.images": len(group)})
        for _, outcome, span in traced:
            traces.record("finish", span.context, times.finish, times.finished)
            _end(span, outcome, times.finished, written, model)

    def _begin(self, claim: Claim) -> None:
        now = time.perf_counter()
        attributes: dict[str, str | int] = {
            "linewatch.inspection.id": str(claim.id),
            "linewatch.attempt": claim.attempt,
        }
        traces.record("queue", claim.trace_context, now - claim.queued_ms / 1000, now, attributes=attributes)
        if claim.batch_id is not None:
            attributes["linewatch.batch.id"] = str(claim.batch_id)
        attributes |= {"messaging.system": "redis", "messaging.operation.type": "process"}
        span = traces.begin("inspect", claim.trace_context, now, kind="consumer", attributes=attributes)
        if span is not None:
            self._spans[claim.id] = span
            self.contexts[claim.id] = span.context


def _record_preparing(span: "Span", image: ClaimedImage) -> None:
    """Record how long an image took to load and to decode. An image that failed ends with the stage that failed."""
    begun = image.begun
    for stage in ("load", "decode"):
        if stage in image.timings_ms:
            ended = begun + image.timings_ms[stage] / 1000
            traces.record(stage, span.context, begun, ended)
            begun = ended


def _record_scoring(spans: Sequence["Span"], times: Times, attributes: Attributes) -> None:
    leader: Span | None = None
    for span in spans:
        links = [other.context for other in spans[1:]] if leader is None else [leader.context]
        score = traces.begin("score", span.context, times.score, attributes=attributes, links=links)
        if score is not None:
            score.end(times.scored)
            leader = leader or score


def _end(
    span: "Span", outcome: Outcome, ended: float, written: Collection[UUID], attributes: Attributes | None = None
) -> None:
    if outcome.id not in written:
        span.end(ended, attributes=attributes, error="claim_lost")
        return
    result: dict[str, str] = {"linewatch.status": outcome.status}
    if outcome.verdict is not None:
        result["linewatch.verdict"] = outcome.verdict
    span.end(ended, attributes={**(attributes or {}), **result}, error=outcome.error_code)
