"""`POST /v1/inspections` with a small raw image: most requests of a line, and so a route with little between.

It does what `api.routes.inspections.submit_inspection` does, which is its documentation. Every request that this route
does not take goes there: forms, large images, compressed bodies and those of unknown size, and requests with a fault in
their header or query, which are refused there.
"""

from functools import lru_cache, partial

from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Match, NoMatchFound
from starlette.types import Receive, Scope, Send

from api.requests.idempotency import has_wrong_key, set_replayed
from api.requests.image_storing import WholeUpload
from api.requests.parameters import UploadFields, once_each, upload_fields
from api.requests.uploads import declared_size, is_image
from api.routes.inspections import new_inspection
from api.services import Services, api_key_of
from core.documents.documents import Inspection
from core.errors import Refused

_QUERIES = 256


class WholeUploads(BaseRoute):
    """The route. It comes before the routers, which match every route of theirs."""

    path_format = "/v1/inspections"

    def __init__(self, services: Services) -> None:
        self._services = services

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        if scope["type"] != "http" or scope["method"] != "POST" or scope["path"] != self.path_format:
            return Match.NONE, {}
        request = Request(scope)
        is_whole = 0 < declared_size(request) <= self._services.receiver.max_whole_bytes
        if (
            not is_whole
            or "content-encoding" in request.headers
            or not is_image(request)
            or has_wrong_key(request.headers)
        ):
            return Match.NONE, {}
        try:
            fields = _fields(scope["query_string"])
        except Refused:
            return Match.NONE, {}
        return Match.FULL, {"fields": fields, "route": self}

    def url_path_for(self, name: str, /, **path_params: object) -> None:  # type: ignore[override]
        raise NoMatchFound(name, dict(path_params))

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        request, services, fields = Request(scope, receive), self._services, scope["fields"]
        recipe = fields.recipe or services.settings.default_recipe
        api_key = api_key_of(scope["state"]["actor"])
        with services.in_flight.hold(scope["state"]["actor"], request.headers.get("Idempotency-Key")) as key:
            await services.group_commit.check(recipe, fields.priority, key, api_key=api_key)
            await services.group_commit.check_callbacks([fields.callback_url], key)
            content = await services.receiver.whole(request)
            header = await services.receiver.long_header(content)
            upload = WholeUpload(content, partial(new_inspection, services, fields=fields), header)
            accepted = await services.group_commit.submit([upload], key=key, api_key=api_key)
        document = Inspection.of(accepted.inspections[0])
        response = Response(document.model_dump_json(), 202, media_type="application/json")
        response.headers["Location"] = f"/v1/inspections/{document.id}"
        set_replayed(response, replayed=accepted.replayed)
        await response(scope, receive, send)


@lru_cache(_QUERIES)
def _fields(query: bytes) -> UploadFields:
    """The fields in a query. Lines send the same query for many images."""
    return upload_fields(once_each(QueryParams(query).multi_items()))
