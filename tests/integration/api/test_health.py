"""The probes of a healthy api."""

from importlib.metadata import version

from core.settings import Settings
from tests.fixtures.api_process import running_api


def test_the_probes_answer_without_a_key(settings: Settings) -> None:
    with running_api(settings, LINEWATCH_AUTH="on") as http:
        alive, ready = http.get("/healthz"), http.get("/readyz")
    assert (alive.status_code, alive.json()) == (200, {"status": "alive", "version": version("linewatch")})
    assert (ready.status_code, ready.json()) == (200, {"status": "ready"})
