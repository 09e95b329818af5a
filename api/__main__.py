"""`python -m api`: serve the api on the address of the settings."""

import sys

import uvicorn

from api.connections import limited_connections
from core.settings import settings_or_exit


def main() -> int:
    """Serve until stopped; 2 if a setting is wrong, or would leave the api open to other machines without keys."""
    settings = settings_or_exit()
    if not settings.listens_on_loopback and not settings.auth_required:
        print(
            f"linewatch: LINEWATCH_AUTH=off is for loopback addresses; {settings.host} can be reached by others. "
            "Leave it on and create a key with `linewatch keys create`.",
            file=sys.stderr,
        )
        return 2
    uvicorn.run(
        "api.app:create_app",
        factory=True,
        http=limited_connections(most=settings.max_connections, header_seconds=settings.client_timeout),
        host=settings.host,
        port=settings.port,
        access_log=False,
        log_level="warning",
        backlog=2048,
        timeout_graceful_shutdown=5,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
