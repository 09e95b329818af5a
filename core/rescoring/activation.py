"""Activation of a version, and of a run if it meets a gate, and their rollback.

An activation makes the run's model version the active one, with the thresholds of the run. It and the rollback are one
transaction each, which locks the recipe, as every activation does, and the run.
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
from core.rescoring.gate import Gate, RuleOutcome
from core.rescoring.run_thresholds import RunThreshold, RunThresholds
from core.rescoring.runs import Run
from core.rescoring.tables import rescore_runs


@dataclass(frozen=True)
class ActivationResult:
    """The run after its activation or rollback, the model version that is active now, and the outcome of the gate."""

    run: Run
    version: ModelVersion
    gate: list[RuleOutcome]


def activate_version(connection: Connection, recipe: str, version: int, *, actor: str) -> ModelVersion:
    """Make a ready version the active one, and end its challenger if it has one.

    Raises:
        Refused: as `model_versions.activate`.
    """
    activated = model_versions.activate(connection, recipe, version, actor=actor)
    challengers.end_of_active(connection, recipe, activated.id, actor=actor)
    return activated


def roll_back_version(connection: Connection, recipe: str, *, actor: str) -> ModelVersion:
    """Activate the version that was active before the current one, and end its challenger if it has one.

    Raises:
        Refused: as `model_versions.rollback`.
    """
    activated = model_versions.rollback(connection, recipe, actor=actor)
    challengers.end_of_active(connection, recipe, activated.id, actor=actor)
    return activated


def activate(connection: Connection, run_id: UUID, wanted: Gate, *, actor: str) -> ActivationResult:
    """Activate the version of a run, and set the run's own threshold if it has one. Ends a challenger of it.

    Raises:
        Refused: and nothing changes. GATE_NOT_MET, with the outcome of every rule as `gate`; INVALID_TRANSITION if the
            run is neither completed nor a running challenger, if the thresholds of its version have changed since it
            was created, or if its version and thresholds are active already; MODEL_NOT_READY.
    """
    recipe, run = _lock_recipe_and_run(connection, run_id)
    _check_has_results(run)
    version = model_versions.by_id(connection, run.model_version_id)
    replaced = _thresholds_to_replace(run, thresholds.in_force(connection, version.id))
    if version.active and not replaced:
        raise Refused(
            Code.INVALID_TRANSITION,
            f"Version {run.model_version} of recipe {run.recipe!r} is active already, with the thresholds of run "
            f"{run_id}. There is nothing to activate.",
        )
    outcomes = gate.evaluate(connection, run, wanted)
    _check_gate_is_met(run, outcomes)
    _set_thresholds(connection, version, [(one.station_id, run.thresholds.general, None) for one in replaced], actor)
    version = model_versions.activate(connection, run.recipe, run.model_version, actor=actor)
    activation = {
        "state": "active",
        "by": actor,
        "at": _now(connection),
        "gate": [outcome.to_json() for outcome in outcomes],
        "confident": wanted.confident,
        "version_before": recipe.active_version,
        "thresholds_before": [_threshold_json(one) for one in replaced],
        "place": model_versions.newest_activation(connection, recipe.id),
    }
    _store(connection, run, activation)
    _record(connection, run, "rescore_run.activated", actor, activation)
    challengers.end_of_active(connection, run.recipe, version.id, actor=actor)
    return ActivationResult(runs.get(connection, run_id), version, outcomes)


def rollback(connection: Connection, run_id: UUID, *, actor: str) -> ActivationResult:
    """Undo the activation of a run: restore the version and the thresholds that were in force before it.

    Raises:
        Refused: INVALID_TRANSITION if the run was not activated or was rolled back already, or if another version was
            activated or a threshold of this version was set since.
    """
    recipe, run = _lock_recipe_and_run(connection, run_id)
    activation = run.activation
    if activation is None or activation["state"] != "active":
        state = "was not activated" if activation is None else "was rolled back already"
        raise Refused(Code.INVALID_TRANSITION, f"Run {run_id} {state}. There is nothing to roll back.")
    _check_is_newest(connection, recipe, run, activation)
    version = model_versions.by_id(connection, run.model_version_id)
    _set_thresholds(
        connection,
        version,
        [
            (one["station_id"], RunThreshold(one["threshold"], one["review_threshold"]), one["calibration"])
            for one in activation["thresholds_before"]
        ],
        actor,
    )
    if activation["version_before"] != run.model_version:
        version = roll_back_version(connection, run.recipe, actor=actor)
    activation = activation | {"state": "rolled_back", "rolled_back_by": actor, "rolled_back_at": _now(connection)}
    _store(connection, run, activation)
    _record(connection, run, "rescore_run.rolled_back", actor, activation)
    outcomes = [RuleOutcome(**outcome) for outcome in activation["gate"]]
    return ActivationResult(runs.get(connection, run_id), version, outcomes)


def _lock_recipe_and_run(connection: Connection, run_id: UUID) -> tuple[Recipe, Run]:
    """Lock the recipe of a run and then the run, and return both as they are then.

    The lock lets a worker copy results into a challenger meanwhile; the worker waits when it updates the counters.
    """
    recipe = recipes.lock(connection, runs.get(connection, run_id).recipe)
    connection.execute(select(rescore_runs.c.id).where(rescore_runs.c.id == run_id).with_for_update(key_share=True))
    return recipe, runs.get(connection, run_id)


def _check_has_results(run: Run) -> None:
    if run.state == "completed" or (run.kind == "challenger" and run.state == "running"):
        return
    raise Refused(
        Code.INVALID_TRANSITION,
        f"Run {run.id} is {run.state}; only a completed run or a running challenger can be activated.",
    )


def _thresholds_to_replace(run: Run, in_force: list[Threshold]) -> list[Threshold]:
    """Return the thresholds in force that differ from the run's own threshold; none if it has no own threshold.

    Refuses a run without its own threshold if the thresholds in force are not those of the run.
    """
    if run.threshold is None:
        if run.thresholds != RunThresholds.from_thresholds(in_force):
            remedy = "End the challenger and start it again" if run.kind == "challenger" else "Create a new run"
            raise Refused(
                Code.INVALID_TRANSITION,
                f"The thresholds of version {run.model_version} of recipe {run.recipe!r} were changed after run "
                f"{run.id} was created, so its results do not show what would be activated. {remedy}, and activate "
                "that one.",
            )
        return []
    return [one for one in in_force if _run_threshold(one) != run.thresholds.general]


def _check_gate_is_met(run: Run, outcomes: list[RuleOutcome]) -> None:
    missed = [outcome for outcome in outcomes if not outcome.met]
    if missed:
        raise Refused(
            Code.GATE_NOT_MET,
            f"Run {run.id} does not meet {', '.join(outcome.rule for outcome in missed)}; nothing was activated.",
            gate=[outcome.to_json() for outcome in outcomes],
        )


def _check_is_newest(connection: Connection, recipe: Recipe, run: Run, activation: dict[str, Any]) -> None:
    if model_versions.newest_activation(connection, recipe.id) != activation["place"]:
        raise Refused(
            Code.INVALID_TRANSITION,
            f"Another version of recipe {run.recipe!r} was activated after run {run.id}; version "
            f"{recipe.active_version} is active now. Roll that back first, or activate the version you want by its "
            "number.",
        )
    in_force = thresholds.in_force(connection, run.model_version_id)
    if run.threshold is not None and any(run.thresholds.general != _run_threshold(one) for one in in_force):
        raise Refused(
            Code.INVALID_TRANSITION,
            f"A threshold of version {run.model_version} of recipe {run.recipe!r} was set after run {run.id} was "
            "activated. A rollback would undo that as well. Set the threshold you want instead.",
        )


def _set_thresholds(
    connection: Connection,
    version: ModelVersion,
    by_station: Iterable[tuple[str | None, RunThreshold, dict[str, Any] | None]],
    actor: str,
) -> None:
    """Append thresholds, each with its station (None: the general one) and its calibration."""
    for station_id, threshold, calibration in by_station:
        thresholds.append(
            connection, version, **vars(threshold), station_id=station_id, calibration=calibration, actor=actor
        )


def _threshold_json(one: Threshold) -> dict[str, Any]:
    return {"station_id": one.station_id, **vars(_run_threshold(one)), "calibration": one.calibration}


def _run_threshold(one: Threshold) -> RunThreshold:
    return RunThreshold(one.threshold, one.review_threshold)


def _now(connection: Connection) -> str:
    return str(connection.execute(select(func.clock_timestamp())).scalar_one().isoformat())


def _store(connection: Connection, run: Run, activation: dict[str, Any]) -> None:
    connection.execute(update(rescore_runs).where(rescore_runs.c.id == run.id).values(activation=activation))


def _record(connection: Connection, run: Run, action: str, actor: str, activation: dict[str, Any]) -> None:
    audit.record(
        connection,
        actor=actor,
        action=action,
        subject=f"rescore_run:{run.id}",
        recipe=run.recipe,
        version=run.model_version,
        version_before=activation["version_before"],
        thresholds_before=activation["thresholds_before"],
        gate=activation["gate"],
        confident=activation["confident"],
    )
