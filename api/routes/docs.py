"""`/docs`: the API reference in the browser. All files are served locally, because plants have no internet access."""

from pathlib import Path

import fastapi_offline
from fastapi import APIRouter
from fastapi.responses import FileResponse

router = APIRouter(include_in_schema=False)

_FILES = Path(__file__).parent.parent
_SWAGGER_FILES = Path(fastapi_offline.__file__).parent / "static"
_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' data:; style-src 'self' 'unsafe-inline'; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
}


@router.get("/docs")
def docs() -> FileResponse:
    """The page."""
    return FileResponse(_FILES / "docs.html", headers=_HEADERS)


@router.get("/docs/start.js")
def docs_start() -> FileResponse:
    """The script that starts Swagger UI."""
    return FileResponse(_FILES / "docs.js", media_type="text/javascript", headers=_HEADERS)


@router.get("/docs/swagger-ui.css")
def docs_style() -> FileResponse:
    """The style sheet of Swagger UI."""
    return FileResponse(_SWAGGER_FILES / "swagger-ui.css", headers=_HEADERS)


@router.get("/docs/swagger-ui-bundle.js")
def docs_program() -> FileResponse:
    """The script of Swagger UI."""
    return FileResponse(_SWAGGER_FILES / "swagger-ui-bundle.js", headers=_HEADERS)
