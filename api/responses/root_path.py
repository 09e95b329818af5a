"""The path below which a proxy publishes the api: everything else here knows only paths from `/` on."""

from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send


class RootPath:
    """ASGI middleware: removes the path from requests, unless the proxy has, and adds it to `Location`."""

    def __init__(self, app: ASGIApp, root_path: str) -> None:
        self._app = app
        self._root_path = root_path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        path: str = scope["path"]
        if path == self._root_path or path.startswith(f"{self._root_path}/"):
            scope = {**scope, "path": path[len(self._root_path) :] or "/"}
        host = Headers(scope=scope).get("host", "")

        async def send_with_root(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                if "location" in headers:
                    headers["location"] = self._below_root(headers["location"], host)
            await send(message)

        await self._app(scope, receive, send_with_root)

    def _below_root(self, location: str, host: str) -> str:
        """Add the root path to a location of this api: a path, or a URL with the host that the client used."""
        parts = urlsplit(location)
        if parts.netloc not in ("", host):
            return location
        return parts._replace(path=self._root_path + parts.path).geturl()
