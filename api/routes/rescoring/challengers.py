"""`/v1/recipes/{name}/challenger`: a model version that scores live images in the active one's shadow."""

from typing import Annotated

from fastapi import APIRouter, Response
from pydantic import BaseModel, ConfigDict, Field

from api.requests.parameters import RecipePath
from api.responses.problems import refuses
from api.services import Actor, Context
from core.errors import Code
from core.rescoring import challengers
from core.rescoring.documents import RescoreRun

router = APIRouter(prefix="/v1/recipes/{name}/challenger", tags=["re-scoring"])

_NONE = refuses(Code.RECIPE_UNKNOWN, Code.NOT_FOUND)


class NewChallenger(BaseModel):
    """Which version challenges the active one, and of how many live images."""

    model_config = ConfigDict(extra="forbid")

    model_version: Annotated[int, Field(ge=1, le=2**31 - 1)]
    share: Annotated[
        float, Field(gt=0, le=1, allow_inf_nan=False, description="of the images that are completed from now on")
    ]


@router.get("", responses=_NONE)
def get_challenger(name: RecipePath, services: Context) -> RescoreRun:
    """The challenger of a recipe, as the run that it is; 404 where there is none."""
    with services.transaction() as connection:
        return RescoreRun.from_run(challengers.get(connection, name))


@router.put(
    "",
    status_code=201,
    responses=_NONE | refuses(Code.MODEL_NOT_READY, Code.CHALLENGER_EXISTS, Code.INVALID_TRANSITION),
)
def set_challenger(
    name: RecipePath, new: NewChallenger, response: Response, services: Context, actor: Actor
) -> RescoreRun:
    """Let a ready version score a share of what the line completes from now on, in the active one's shadow.

    Its scores change no inspection, batch or feed. Which images are in the share follows from their ids alone. It is
    a re-scoring run of the kind `challenger` and has the same results, flips and report; it goes on until it is ended.
    Of what it cannot score within an hour it skips images and counts them as `skipped`.
    """
    with services.transaction() as connection:
        made = challengers.create(connection, name, new.model_version, share=new.share, actor=actor)
    response.headers["Location"] = f"/v1/rescore-runs/{made.id}"
    return RescoreRun.from_run(made)


@router.delete("", responses=_NONE)
def end_challenger(name: RecipePath, services: Context, actor: Actor) -> RescoreRun:
    """End the challenger: it finishes what it has in hand and takes nothing more. Its results stay."""
    with services.transaction() as connection:
        return RescoreRun.from_run(challengers.end(connection, name, actor=actor))
