"""`/v1/rescore-runs/{id}/activate` and `/rollback`: activate the version and thresholds of a run, or undo it."""

from uuid import UUID

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict

from api.responses.problems import refuses
from api.responses.schemas import GateOutcome, RunActivation
from api.services import Actor, Context, Services
from core.documents.documents import ModelVersion
from core.errors import Code
from core.models import thresholds
from core.models.thresholds import Threshold
from core.rescoring import activation
from core.rescoring.activation import ActivationResult
from core.rescoring.documents import RescoreRun
from core.rescoring.gate import Gate
from core.storage import bundles

router = APIRouter(prefix="/v1/rescore-runs/{run_id}", tags=["re-scoring"])


class Activation(BaseModel):
    """The gate that a run must meet to be activated."""

    model_config = ConfigDict(extra="forbid")

    gate: Gate


def _document(
    services: Services, result: ActivationResult, in_force: list[Threshold], *, activated: bool
) -> RunActivation:
    """Call it after the transaction: it asks the store for the size of the bundle."""
    bundle_bytes = bundles.size_of(services.store, result.version.sha256)
    return RunActivation(
        activated=activated,
        gate=[GateOutcome.of_rule(outcome) for outcome in result.gate],
        run=RescoreRun.from_run(result.run),
        model_version=ModelVersion.of(result.version, in_force, bundle_bytes),
    )


@router.post("/activate", responses=refuses(Code.GATE_NOT_MET, Code.INVALID_TRANSITION, Code.MODEL_NOT_READY))
def activate_rescore_run(run_id: UUID, new: Activation, services: Context, actor: Actor) -> RunActivation:
    """Activate the model version of a run if the run meets a gate. It scores from the next minibatch on.

    If the run had its own threshold, that becomes the threshold of the version, also at every station. Either all of
    this happens, or nothing. If the gate is not met, the response is 409 `gate_not_met` with the outcome of every rule
    in `gate`. The response is 409 `invalid_transition` if the version and thresholds are already active, if the run is
    not completed, or if the thresholds of the version have changed since the run was created. A running challenger can
    be activated; the activation ends it.
    """
    with services.transaction() as connection:
        result = activation.activate(connection, run_id, new.gate, actor=actor)
        in_force = thresholds.in_force(connection, result.version.id)
    return _document(services, result, in_force, activated=True)


@router.post("/rollback", responses=refuses(Code.INVALID_TRANSITION))
def roll_back_rescore_run(run_id: UUID, services: Context, actor: Actor) -> RunActivation:
    """Undo the activation of a run: restore the version and the thresholds that were active before.

    409 `invalid_transition` if another version was activated since, or a threshold of this version was set: the
    rollback would undo that, too.
    """
    with services.transaction() as connection:
        result = activation.rollback(connection, run_id, actor=actor)
        in_force = thresholds.in_force(connection, result.version.id)
    return _document(services, result, in_force, activated=False)
