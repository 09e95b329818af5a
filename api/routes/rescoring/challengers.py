"""`/v1/recipes/{name}/challenger`: a model version that scores live images in shadow mode."""

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

_NOT_FOUND = refuses(Code.RECIPE_UNKNOWN, Code.NOT_FOUND)


class NewChallenger(BaseModel):
    """The version that challenges the active version, and its share of the live images."""

    model_config = ConfigDict(extra="forbid")

    model_version: Annotated[int, Field(ge=1, le=2**31 - 1)]
    share: Annotated[
        float, Field(gt=0, le=1, allow_inf_nan=False, description="the share of the images completed from now on")
    ]


@router.get("", responses=_NOT_FOUND)
def get_challenger(name: RecipePath, services: Context) -> RescoreRun:
    """Get the challenger of a recipe as a re-scoring run. 404 if there is none."""
    with services.transaction() as connection:
        return RescoreRun.from_run(challengers.get(connection, name))


@router.put(
    "",
    status_code=201,
    responses=_NOT_FOUND | refuses(Code.MODEL_NOT_READY, Code.CHALLENGER_EXISTS, Code.INVALID_TRANSITION),
)
def set_challenger(
    name: RecipePath, new: NewChallenger, response: Response, services: Context, actor: Actor
) -> RescoreRun:
    """Let a ready version score a share of the images that are completed from now on, in shadow mode.

    Its scores do not change any inspection, batch or feed entry. The ids of the images determine which are in the
    share. The challenger is a re-scoring run of the kind `challenger`, with the same results, flips and report. It
    runs until you end it. Images that it cannot score within an hour are skipped, and counted as `skipped`.
    """
    with services.transaction() as connection:
        run = challengers.create(connection, name, new.model_version, share=new.share, actor=actor)
    response.headers["Location"] = f"/v1/rescore-runs/{run.id}"
    return RescoreRun.from_run(run)


@router.delete("", responses=_NOT_FOUND)
def end_challenger(name: RecipePath, services: Context, actor: Actor) -> RescoreRun:
    """End the challenger. It finishes the images already planned, and takes no more. Its results stay."""
    with services.transaction() as connection:
        return RescoreRun.from_run(challengers.end(connection, name, actor=actor))
