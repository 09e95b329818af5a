"""`/v1/rescore-runs/{id}/activate` and `/rollback`: from what a run has shown to what scores, and one step back."""

from uuid import UUID

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict
from sqlalchemy import Connection

from api.responses.problems import refuses
from api.responses.schemas import GateOutcome, RunActivation
from api.services import Actor, Context
from core.documents.documents import ModelVersion
from core.errors import Code
from core.models import thresholds
from core.rescoring import activation
from core.rescoring.activation import ActivationResult
from core.rescoring.documents import RescoreRun
from core.rescoring.gate import Gate

router = APIRouter(prefix="/v1/rescore-runs/{run_id}", tags=["re-scoring"])


class Activation(BaseModel):
    """What a run must have shown before it is activated."""

    model_config = ConfigDict(extra="forbid")

    gate: Gate


def _described(connection: Connection, done: ActivationResult, *, activated: bool) -> RunActivation:
    return RunActivation(
        activated=activated,
        gate=[GateOutcome.of_rule(one) for one in done.gate],
        run=RescoreRun.from_run(done.run),
        model_version=ModelVersion.of(done.version, thresholds.in_force(connection, done.version.id)),
    )


@router.post("/activate", responses=refuses(Code.GATE_NOT_MET, Code.INVALID_TRANSITION, Code.MODEL_NOT_READY))
def activate_rescore_run(run_id: UUID, asked: Activation, services: Context, actor: Actor) -> RunActivation:
    """Let what a run assessed score from the next minibatch on, if it meets a gate.

    Its model version becomes the active one. Where the run judged with a threshold of its own, that becomes the
    version's, at each station, too. All of it happens or nothing does. A gate that is not met is 409 `gate_not_met`
    with every rule's outcome in `gate`. What scores already cannot be activated: 409 `invalid_transition`, as for a
    run that is not completed and for one whose version has other thresholds by now than those that judged the run. A
    challenger may be running; it is ended by it.
    """
    with services.transaction() as connection:
        done = activation.activate(connection, run_id, asked.gate, actor=actor)
        return _described(connection, done, activated=True)


@router.post("/rollback", responses=refuses(Code.INVALID_TRANSITION))
def roll_back_rescore_run(run_id: UUID, services: Context, actor: Actor) -> RunActivation:
    """Go one step back behind the activation of a run: to the version and the thresholds that were in force before.

    409 `invalid_transition` where another version was activated since, or a threshold of this one was set: the step
    back would undo that, too.
    """
    with services.transaction() as connection:
        done = activation.rollback(connection, run_id, actor=actor)
        return _described(connection, done, activated=False)
