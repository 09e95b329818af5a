"""`/`: the web page. It is static and uses the public api."""

from pathlib import Path

from fastapi import APIRouter
from fastapi.responses import FileResponse

router = APIRouter(include_in_schema=False)

_PAGE = Path(__file__).parent.parent / "page.html"


@router.get("/", response_class=FileResponse)
def page() -> FileResponse:
    """Serve the web page."""
    return FileResponse(
        _PAGE,
        headers={
            "Content-Security-Policy": "default-src 'self'; img-src 'self' blob: data:; style-src 'unsafe-inline'; "
            "script-src 'unsafe-inline'; frame-ancestors 'none'",
            "X-Content-Type-Options": "nosniff",
            "Cache-Control": "no-cache",
        },
    )
