"""`/v1/recipes/{name}/model-versions`: upload bundles and activate versions."""

import asyncio
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import FileResponse
from sqlalchemy import Connection

from api.requests.parameters import RecipePath, VersionPath
from api.responses.etags import NOT_MODIFIED, IfNoneMatch
from api.responses.problems import refuses
from api.responses.schemas import ModelVersionList, binary
from api.responses.stored_files import StoredFileResponse
from api.services import Actor, Context, Services
from core.documents.documents import ModelVersion
from core.errors import Code, Refused
from core.models import model_versions, recipes, thresholds
from core.queue.broker import BULK_QUEUE, Task
from core.rescoring import activation
from core.storage import bundles
from core.storage.bundles import VerifiedBundle
from core.storage.image_store import Staged, bundle_key

router = APIRouter(prefix="/v1/recipes/{name}", tags=["model versions"], responses=refuses(Code.RECIPE_UNKNOWN))

_BODY = {
    "requestBody": {
        "required": True,
        "content": {"application/x-tar": {"schema": {"type": "string", "format": "binary"}}},
    }
}
_EXISTS: dict[int | str, dict[str, Any]] = {200: {"model": ModelVersion, "description": "The version already exists."}}


def _document(connection: Connection, version: model_versions.ModelVersion) -> ModelVersion:
    return ModelVersion.of(version, thresholds.in_force(connection, version.id))


def _with_size(services: Services, document: ModelVersion) -> ModelVersion:
    """Add the size of the bundle, which the store knows. Call it after the transaction."""
    size = bundles.size_of(services.store, bytes.fromhex(document.sha256))
    return document.model_copy(update={"bundle_bytes": size})


@router.get("/model-versions")
def list_model_versions(name: RecipePath, services: Context) -> ModelVersionList:
    """List the versions of a recipe, newest first."""
    with services.transaction() as connection:
        versions = model_versions.list_all(connection, name)
        documents = [_document(connection, version) for version in versions]
    return ModelVersionList(items=[_with_size(services, document) for document in documents])


@router.post(
    "/model-versions",
    status_code=201,
    openapi_extra=_BODY,
    responses=_EXISTS | refuses(Code.EMPTY_BODY, Code.INVALID_BUNDLE, Code.STORE_FULL, Code.STORE_UNAVAILABLE),
)
async def upload_model_version(
    name: RecipePath, request: Request, response: Response, services: Context, actor: Actor
) -> ModelVersion:
    """Upload a bundle: an uncompressed tar with exactly the files in its manifest.

    The version becomes `ready` after a worker has loaded it and reproduced its golden scores. Uploading the same bundle
    again returns the existing version, with status 200.
    """
    services.group_commit.space.check()
    await asyncio.to_thread(_check_recipe, services, name)
    staged = await services.receiver.in_thread(services.store.stage)
    try:
        await _receive(request, staged, services)
        bundle = await asyncio.to_thread(bundles.verify, staged, max_bytes=services.settings.max_bundle_bytes)
        version, new = await services.receiver.in_thread(lambda: _register(services, bundle, name, actor))
    finally:
        await services.receiver.in_thread(staged.discard)
    if not new:
        response.status_code = 200
    response.headers["Location"] = f"/v1/recipes/{name}/model-versions/{version.version}"
    return version


def _check_recipe(services: Services, name: str) -> None:
    with services.transaction() as connection:
        recipes.get(connection, name)


async def _receive(request: Request, staged: Staged, services: Services) -> None:
    limit = services.settings.max_bundle_bytes
    async for chunk in request.stream():
        if staged.size + len(chunk) > limit:
            raise Refused(Code.UPLOAD_TOO_LARGE, f"The bundle must not be larger than {limit} bytes.")
        await services.receiver.in_thread(lambda data=chunk: staged.write(data))  # type: ignore[misc]
    if staged.size == 0:
        raise Refused(Code.EMPTY_BODY, "The body is empty. Send the bundle as an uncompressed tar.")
    await services.receiver.in_thread(staged.flush)


def _register(services: Services, bundle: VerifiedBundle, name: str, actor: str) -> tuple[ModelVersion, bool]:
    bundle.publish(services.store)
    with services.transaction() as connection:
        version, new = bundle.register(connection, name, actor=actor)
        document = _document(connection, version)
    if not services.store.holds(bundle_key(bundle.sha256)):
        raise Refused(Code.STORE_UNAVAILABLE, "An older copy of the bundle was being removed: send it again.")
    if version.state == "uploaded":
        services.publisher.call(Task.CHECK_MODEL, version.id, queue=BULK_QUEUE)
    return _with_size(services, document), new


@router.get("/model-versions/{version}")
def get_model_version(name: RecipePath, version: VersionPath, services: Context) -> ModelVersion:
    """Get a version, with its manifest and the thresholds in force."""
    with services.transaction() as connection:
        document = _document(connection, model_versions.get(connection, name, version))
    return _with_size(services, document)


@router.get(
    "/model-versions/{version}/bundle",
    response_class=FileResponse,
    responses=binary("application/x-tar") | NOT_MODIFIED | refuses(Code.STORE_UNAVAILABLE),
)
def get_bundle(
    name: RecipePath, version: VersionPath, services: Context, if_none_match: IfNoneMatch = None
) -> FileResponse:
    """Get the uploaded bundle."""
    with services.transaction() as connection:
        sha256 = model_versions.get(connection, name, version).sha256
    return StoredFileResponse.of(
        services.store,
        bundle_key(sha256),
        missing=f"The bundle of version {version} is no longer in the store.",
        media_type="application/x-tar",
        filename=f"{name}-{version}.tar",
    )


@router.post("/model-versions/{version}/activate", responses=refuses(Code.MODEL_NOT_READY))
def activate_model_version(name: RecipePath, version: VersionPath, services: Context, actor: Actor) -> ModelVersion:
    """Activate a ready version. It scores from the next minibatch on, and is no challenger any more."""
    with services.transaction() as connection:
        document = _document(connection, activation.activate_version(connection, name, version, actor=actor))
    return _with_size(services, document)


@router.post("/model-versions/rollback", responses=refuses(Code.INVALID_TRANSITION))
@router.post("/rollback", include_in_schema=False)
def roll_back(name: RecipePath, services: Context, actor: Actor) -> ModelVersion:
    """Activate the previously active version again."""
    with services.transaction() as connection:
        document = _document(connection, activation.roll_back_version(connection, name, actor=actor))
    return _with_size(services, document)
