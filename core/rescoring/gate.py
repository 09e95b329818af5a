"""A gate: what a run must have shown before what it assessed may score."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator
from sqlalchemy import Connection, text

from core.rescoring.reports import agreement
from core.rescoring.reports.proportions import upper_bound
from core.rescoring.runs import Run

_Share = Annotated[float | None, Field(ge=0, le=1, allow_inf_nan=False)]
_Size = Annotated[int | None, Field(ge=1, le=10**12)]

_SHARES = ("max_new_false_rejects", "max_new_rejects", "max_missed", "max_failures")


class Gate(BaseModel):
    """Rules with limits; all that are given must be met. A share of nothing cannot be judged, so it is not met."""

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
        _Size, Field(description="at least this many parts of the run must have been reviewed ok")
    ] = None
    min_reviewed_ng: Annotated[
        _Size, Field(description="at least this many parts of the run must have been reviewed ng")
    ] = None
    confident: Annotated[
        bool,
        Field(description="judge each share by its upper bound with 95 % confidence, not as it was measured"),
    ] = False

    @model_validator(mode="after")
    def _limits_something(self) -> Self:
        if all(getattr(self, name) is None for name in _SHARES):
            raise ValueError(f"name at least one of {', '.join(_SHARES)}")
        return self


@dataclass(frozen=True)
class Outcome:
    """How a run fares with one rule.

    Attributes:
        limit: what the gate asks for: a share from 0 to 1, or a number of parts.
        measured: what the run has, in the same unit; None where nothing can be said.
        count, of: the share is `count` of `of`.
        bound: of a share: with 95 % confidence it is not above this; None of a number.
        met: False also where nothing can be said.
        detail: for people: why nothing can be said; None else.
    """

    rule: str
    limit: float
    measured: float | None
    count: int
    of: int
    bound: float | None
    met: bool
    detail: str | None

    def stored(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)


def evaluate(connection: Connection, run: Run, gate: Gate) -> list[Outcome]:
    """Judge a run by every rule of a gate, as run and reviews stand now."""
    return list(_outcomes(connection, run, gate))


def _outcomes(connection: Connection, run: Run, gate: Gate) -> Iterator[Outcome]:
    said = agreement.measure_agreement(connection, run.id)
    ok, ng = (said.number([one], after=("ok", "ng", "review")) for one in ("ok", "ng"))

    def share(rule: str, count: int, of: int, nothing: str) -> Outcome:
        limit = getattr(gate, rule)
        if of == 0:
            return Outcome(rule, limit, None, count, of, None, met=False, detail=nothing)
        measured, bound = count / of, upper_bound(count, of)
        met = (bound if gate.confident else measured) <= limit
        return Outcome(rule, limit, measured, count, of, bound, met, detail=None)

    def size(rule: str, number: int) -> Outcome:
        limit = getattr(gate, rule)
        return Outcome(rule, limit, number, number, ok + ng, None, met=number >= limit, detail=None)

    if gate.max_new_false_rejects is not None:
        nothing = "no part that the run has judged was reviewed ok"
        yield share("max_new_false_rejects", said.new_false_rejects, ok, nothing)
    if gate.max_missed is not None:
        yield share("max_missed", said.new_misses, ng, "no part that the run has judged was reviewed ng")
    if gate.max_new_rejects is not None:
        flipped, compared = _compared(connection, run)
        yield share("max_new_rejects", flipped, compared, "no image of the run had a verdict before")
    if gate.max_failures is not None:
        yield share("max_failures", run.counts["failed"], run.done, "the run has no result")
    if gate.min_reviewed_ok is not None:
        yield size("min_reviewed_ok", ok)
    if gate.min_reviewed_ng is not None:
        yield size("min_reviewed_ng", ng)


def _compared(connection: Connection, run: Run) -> tuple[int, int]:
    """How many images went from ok to ng, and how many have a verdict before and now."""
    row = connection.execute(
        text("""
            SELECT count(*) FILTER (WHERE before_verdict = 'ok' AND verdict = 'ng') AS flipped, count(*) AS compared
            FROM rescore_results
            WHERE run_id = :run_id AND before_verdict IS NOT NULL AND verdict IS NOT NULL
        """),
        {"run_id": run.id},
    ).one()
    return row.flipped, row.compared
