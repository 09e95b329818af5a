"""The web page: one document for all of its addresses, and the files that it loads. It uses only the public API.

No script and no style is inline, so that the Content-Security-Policy can forbid both.
"""

from pathlib import Path
from typing import Final

from fastapi import APIRouter, Request
from fastapi.responses import FileResponse, HTMLResponse
from starlette.responses import Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from api.responses import problems

FOLDER: Final = Path(__file__).parent.parent / "page"
VIEWS: Final = (
    "/",
    "/live",
    "/inspections",
    "/inspections/{inspection_id}",
    "/thresholds",
    "/review",
    "/train",
    "/models",
    "/rescoring",
    "/drift",
    "/system",
)
HEADERS: Final = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-cache",
}

router = APIRouter(include_in_schema=False)


def _page(request: Request) -> Response:
    """Serve the page. It chooses the view by its address."""
    return _page_response(request)


def _page_response(request: Request, status_code: int = 200) -> Response:
    root_path = request.app.state.services.settings.root_path
    if not root_path:
        return FileResponse(FOLDER / "index.html", status_code=status_code, headers=HEADERS)
    page = (FOLDER / "index.html").read_text(encoding="utf-8")
    return HTMLResponse(page.replace('="/', f'="{root_path}/'), status_code=status_code, headers=HEADERS)


for _path in VIEWS:
    router.add_api_route(_path, _page, response_class=HTMLResponse, name=f"page {_path}")


async def not_found(request: Request, error: Exception) -> Response:
    """Answer a browser that opens an unknown address with the page, which says so; anything else with a problem."""
    wants_page = request.method == "GET" and "text/html" in request.headers.get("Accept", "")
    if wants_page and not request.url.path.startswith(("/v1", "/static")):
        return _page_response(request, 404)
    return await problems.http_error(request, error)


class PageFiles(StaticFiles):
    """The files of the page. Browsers ask each time whether a file has changed, so an upgrade is seen at once."""

    def __init__(self) -> None:
        super().__init__(directory=FOLDER)

    async def get_response(self, path: str, scope: Scope) -> Response:
        """Serve one file with the headers of the page."""
        response = await super().get_response(path, scope)
        response.headers.update(HEADERS)
        return response
