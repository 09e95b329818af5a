"""From a run to action: what it assessed scores from now on, if a gate is met; and one step back.

Both are one transaction that holds the recipe, as every activation does, and the run. What is served afterwards is what
was assessed: the run's model version, with the thresholds that judged the run.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, func, select, update

from core.access import audit
from core.errors import Code, Refused
from core.models import model_versions, recipes, thresholds
from core.models.model_versions import ModelVersion
from core.models.recipes import Recipe
from core.models.thresholds import Threshold
from core.rescoring import challengers, gate, runs
from core.rescoring.gate import Gate, Outcome
from core.rescoring.run_thresholds import RunThreshold, RunThresholds
from core.rescoring.runs import Run
from core.rescoring.tables import rescore_runs


@dataclass(frozen=True)
class Activated:
    """What an activation has done."""

    run: Run
    version: ModelVersion
    gate: list[Outcome]


def activate(connection: Connection, run_id: UUID, asked: Gate, *, actor: str) -> Activated:
    """Let what a run assessed score: its version, and where it judged with a threshold of its own that threshold.

    Refuses, and changes nothing: a gate that is not met (GATE_NOT_MET, with every rule's outcome as `gate`); a run that
    is not completed (a challenger may be running); one whose version has other thresholds by now than those that judged
    the run; and one whose version and thresholds score already. A challenger is ended by it.
    """
    owner, run = _locked(connection, run_id)
    _check_has_results(run)
    version = model_versions.by_id(connection, run.model_version_id)
    in_force = thresholds.in_force(connection, version.id)
    replaced = _replaced(run, in_force)
    if version.active and not replaced:
        raise Refused(
            Code.INVALID_TRANSITION,
            f"What run {run_id} assessed scores already: version {run.model_version} of recipe {run.recipe!r} is "
            "active with these thresholds. There is nothing to activate.",
        )
    outcomes = gate.evaluate(connection, run, asked)
    _check_met(run, outcomes)
    _set(connection, version, [(one.station_id, run.limits.general, None) for one in replaced], actor)
    version = model_versions.activate(connection, run.recipe, run.model_version, actor=actor)
    note = {
        "state": "active",
        "by": actor,
        "at": _now(connection),
        "gate": [one.stored() for one in outcomes],
        "confident": asked.confident,
        "version_before": owner.active_version,
        "thresholds_before": [_kept(one) for one in replaced],
        "place": model_versions.newest_activation(connection, owner.id),
    }
    _note(connection, run, note)
    _record(connection, run, "rescore_run.activated", actor, note)
    if run.kind == "challenger" and not run.final:
        challengers.end(connection, run.recipe, actor=actor)
    return Activated(runs.get(connection, run_id), version, outcomes)


def rollback(connection: Connection, run_id: UUID, *, actor: str) -> Activated:
    """One step back behind the activation of a run: the version and the thresholds that were in force before it.

    Refuses a run that was not activated, or was rolled back already, and one since whose activation another version
    was activated or a threshold of this one was set.
    """
    owner, run = _locked(connection, run_id)
    note = run.activation
    if note is None or note["state"] != "active":
        what = "was not activated" if note is None else "was rolled back already"
        raise Refused(Code.INVALID_TRANSITION, f"Run {run_id} {what}: there is nothing to roll back.")
    _check_is_newest(connection, owner, run, note)
    version = model_versions.by_id(connection, run.model_version_id)
    _set(
        connection,
        version,
        [
            (one["station_id"], RunThreshold(one["threshold"], one["review_threshold"]), one["calibration"])
            for one in note["thresholds_before"]
        ],
        actor,
    )
    if note["version_before"] != run.model_version:
        version = model_versions.rollback(connection, run.recipe, actor=actor)
    note = {**note, "state": "rolled_back", "rolled_back_by": actor, "rolled_back_at": _now(connection)}
    _note(connection, run, note)
    _record(connection, run, "rescore_run.rolled_back", actor, note)
    return Activated(runs.get(connection, run_id), version, [Outcome(**one) for one in note["gate"]])


def _locked(connection: Connection, run_id: UUID) -> tuple[Recipe, Run]:
    """The recipe of a run and the run, locked in this order, as they stand then.

    Results may still be copied into a challenger meanwhile; what counts them waits.
    """
    owner = recipes.lock(connection, runs.get(connection, run_id).recipe)
    connection.execute(select(rescore_runs.c.id).where(rescore_runs.c.id == run_id).with_for_update(key_share=True))
    return owner, runs.get(connection, run_id)


def _check_has_results(run: Run) -> None:
    if run.state == "completed" or (run.kind == "challenger" and run.state == "running"):
        return
    raise Refused(
        Code.INVALID_TRANSITION,
        f"Run {run.id} is {run.state}; only a completed one, or a challenger that is running, can be activated.",
    )


def _replaced(run: Run, in_force: list[Threshold]) -> list[Threshold]:
    """The thresholds in force that are not those that judged the run; refuses where it did not bring its own."""
    judged = run.limits
    if run.threshold is None:
        if judged != RunThresholds.made_of(in_force):
            how = "end the challenger and start it again" if run.kind == "challenger" else "make a new run"
            raise Refused(
                Code.INVALID_TRANSITION,
                f"The thresholds of version {run.model_version} of recipe {run.recipe!r} were changed after run "
                f"{run.id} was made, so that others would score than were assessed: {how}, and activate that one.",
            )
        return []
    return [one for one in in_force if _limit(one) != judged.general]


def _check_met(run: Run, outcomes: list[Outcome]) -> None:
    missed = [one for one in outcomes if not one.met]
    if missed:
        raise Refused(
            Code.GATE_NOT_MET,
            f"Run {run.id} does not meet {', '.join(one.rule for one in missed)}; nothing was activated.",
            gate=[one.stored() for one in outcomes],
        )


def _check_is_newest(connection: Connection, owner: Recipe, run: Run, note: dict[str, Any]) -> None:
    if model_versions.newest_activation(connection, owner.id) != note["place"]:
        raise Refused(
            Code.INVALID_TRANSITION,
            f"Since run {run.id} was activated, recipe {run.recipe!r} was given another active version; it is "
            f"{owner.active_version} now. Roll that back first, or activate the version that is wanted by its number.",
        )
    in_force = thresholds.in_force(connection, run.model_version_id)
    if run.threshold is not None and any(run.limits.general != _limit(one) for one in in_force):
        raise Refused(
            Code.INVALID_TRANSITION,
            f"A threshold of version {run.model_version} of recipe {run.recipe!r} was set since run {run.id} was "
            "activated: a step back would undo that, too. Set the threshold that is wanted.",
        )


def _set(
    connection: Connection,
    version: ModelVersion,
    wanted: Iterable[tuple[str | None, RunThreshold, dict[str, Any] | None]],
    actor: str,
) -> None:
    """Append thresholds of stations, or of all without one of their own (None), with their calibrations."""
    for station_id, limit, calibration in wanted:
        thresholds.append(
            connection, version, **vars(limit), station_id=station_id, calibration=calibration, actor=actor
        )


def _kept(one: Threshold) -> dict[str, Any]:
    return {"station_id": one.station_id, **vars(_limit(one)), "calibration": one.calibration}


def _limit(one: Threshold) -> RunThreshold:
    return RunThreshold(one.threshold, one.review_threshold)


def _now(connection: Connection) -> str:
    return str(connection.execute(select(func.clock_timestamp())).scalar_one().isoformat())


def _note(connection: Connection, run: Run, note: dict[str, Any]) -> None:
    connection.execute(update(rescore_runs).where(rescore_runs.c.id == run.id).values(activation=note))


def _record(connection: Connection, run: Run, action: str, actor: str, note: dict[str, Any]) -> None:
    audit.record(
        connection,
        actor=actor,
        action=action,
        subject=f"rescore_run:{run.id}",
        recipe=run.recipe,
        version=run.model_version,
        version_before=note["version_before"],
        thresholds_before=note["thresholds_before"],
        gate=note["gate"],
        confident=note["confident"],
    )
