"""Who follows a run is not stopped by a restart of the api."""

import threading

from sqlalchemy import Engine

from core.settings import Settings
from linewatch import Client
from linewatch.http.transport import RECONNECTS
from tests.fixtures.api_process import running_api
from tests.fixtures.finished_inspections import RECIPE, make_recipe
from tests.fixtures.servers import free_port


def test_a_run_is_followed_through_a_restart(engine: Engine, settings: Settings) -> None:
    make_recipe(engine)
    port, away, waits = str(free_port()), threading.Event(), [0]

    def told(*_: object) -> None:
        waits[0] += 1
        if waits[0] > RECONNECTS:  # what is not followed has given up by now
            away.set()

    with Client(f"http://127.0.0.1:{port}", on_wait=told) as lw:
        with running_api(settings, LINEWATCH_PORT=port):
            run = lw.rescore(RECIPE, 1, where={})
            seen = lw.follow_run(run.id, every=0.1)
            assert next(seen).status == "queued"

        def restart() -> None:
            assert away.wait(60)
            with running_api(settings, LINEWATCH_PORT=port) as http:
                http.post(f"/v1/rescore-runs/{run.id}/cancel").raise_for_status()
                assert ended.wait(60)

        ended = threading.Event()
        again = threading.Thread(target=restart)
        again.start()
        try:
            last = [one.status for one in seen][-1]
        finally:
            ended.set()
            again.join(60)
    assert last == "cancelled"
