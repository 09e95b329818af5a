"""The gate: rules that a run must meet before its version and thresholds can be activated."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator
from sqlalchemy import Connection, text

from core.rescoring.reports import agreement
from core.rescoring.reports.confidence_bound import upper_confidence_bound
from core.rescoring.runs import Run

_Share = Annotated[float | None, Field(ge=0, le=1, allow_inf_nan=False)]
_Count = Annotated[int | None, Field(ge=1, le=10**12)]

_SHARES = ("max_new_false_rejects", "max_new_rejects", "max_missed", "max_failures")


class Gate(BaseModel):
    """A set of rules, all of which must be met. A share of zero images cannot be computed, so it is not met."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    max_new_false_rejects: Annotated[
        _Share, Field(description="of the parts reviewed ok: the share that is ng now and was not before")
    ] = None
    max_new_rejects: Annotated[
        _Share, Field(description="of the images with a verdict before and now: the share that went from ok to ng")
    ] = None
    max_missed: Annotated[
        _Share, Field(description="of the parts reviewed ng: the share that is ok now and was not before")
    ] = None
    max_failures: Annotated[_Share, Field(description="of all images: the share that could not be scored")] = None
    min_reviewed_ok: Annotated[
        _Count, Field(description="at least this many parts of the run must have been reviewed ok")
    ] = None
    min_reviewed_ng: Annotated[
        _Count, Field(description="at least this many parts of the run must have been reviewed ng")
    ] = None
    confident: Annotated[
        bool,
        Field(description="compare the upper bound of each share with 95 % confidence, not the measured share"),
    ] = False

    @model_validator(mode="after")
    def _require_a_share(self) -> Self:
        if all(getattr(self, name) is None for name in _SHARES):
            raise ValueError(f"name at least one of {', '.join(_SHARES)}")
        return self


@dataclass(frozen=True)
class RuleOutcome:
    """The outcome of one rule of a gate.

    Attributes:
        limit: what the gate requires: a share from 0 to 1, or a number of parts.
        measured: what the run has, in the same unit; None if it cannot be computed.
        count, of: the share is `count` divided by `of`.
        bound: the upper bound of the share with 95 % confidence; None if the rule is about a number of parts.
        met: False if the share cannot be computed.
        detail: why the share cannot be computed, for people; otherwise None.
    """

    rule: str
    limit: float
    measured: float | None
    count: int
    of: int
    bound: float | None
    met: bool
    detail: str | None

    def to_json(self) -> dict[str, Any]:
        """Return the outcome as JSON."""
        return asdict(self)


def evaluate(connection: Connection, run: Run, gate: Gate) -> list[RuleOutcome]:
    """Evaluate every rule of a gate for a run, with the results and reviews that exist now."""
    return list(_outcomes(connection, run, gate))


def _outcomes(connection: Connection, run: Run, gate: Gate) -> Iterator[RuleOutcome]:
    reviewed = agreement.measure_agreement(connection, run.id)
    ok, ng = (reviewed.count([verdict], after=("ok", "ng", "review")) for verdict in ("ok", "ng"))

    def share(rule: str, count: int, of: int, if_empty: str) -> RuleOutcome:
        limit = getattr(gate, rule)
        if of == 0:
            return RuleOutcome(rule, limit, None, count, of, None, met=False, detail=if_empty)
        measured, bound = count / of, upper_confidence_bound(count, of)
        met = (bound if gate.confident else measured) <= limit
        return RuleOutcome(rule, limit, measured, count, of, bound, met, detail=None)

    def minimum(rule: str, count: int) -> RuleOutcome:
        limit = getattr(gate, rule)
        return RuleOutcome(rule, limit, count, count, ok + ng, None, met=count >= limit, detail=None)

    if gate.max_new_false_rejects is not None:
        if_empty = "no part with a verdict of the run was reviewed ok"
        yield share("max_new_false_rejects", reviewed.new_false_rejects, ok, if_empty)
    if gate.max_missed is not None:
        yield share("max_missed", reviewed.new_misses, ng, "no part with a verdict of the run was reviewed ng")
    if gate.max_new_rejects is not None:
        flipped, compared = _count_new_rejects(connection, run)
        yield share("max_new_rejects", flipped, compared, "no image of the run had a verdict before")
    if gate.max_failures is not None:
        yield share("max_failures", run.counts["failed"], run.done, "the run has no results")
    if gate.min_reviewed_ok is not None:
        yield minimum("min_reviewed_ok", ok)
    if gate.min_reviewed_ng is not None:
        yield minimum("min_reviewed_ng", ng)


def _count_new_rejects(connection: Connection, run: Run) -> tuple[int, int]:
    """Return how many images went from ok to ng, and how many have a verdict before and now."""
    row = connection.execute(
        text("""
            SELECT count(*) FILTER (WHERE before_verdict = 'ok' AND verdict = 'ng') AS flipped, count(*) AS compared
            FROM rescore_results
            WHERE run_id = :run_id AND before_verdict IS NOT NULL AND verdict IS NOT NULL
        """),
        {"run_id": run.id},
    ).one()
    return row.flipped, row.compared
