"""Following a run survives a restart of the api."""

import threading

from sqlalchemy import Engine

from core.settings import Settings
from linewatch import Client
from linewatch.http.transport import RECONNECTS
from tests.fixtures.api_process import running_api
from tests.fixtures.finished_inspections import RECIPE, make_recipe_with_model
from tests.fixtures.servers import free_port


def test_a_run_is_followed_across_an_api_restart(engine: Engine, settings: Settings) -> None:
    make_recipe_with_model(engine)
    port, stopped, waits = str(free_port()), threading.Event(), [0]

    def on_wait(*_: object) -> None:
        waits[0] += 1
        if waits[0] > RECONNECTS:  # a plain request would have given up by now
            stopped.set()

    with Client(f"http://127.0.0.1:{port}", on_wait=on_wait) as lw:
        with running_api(settings, LINEWATCH_PORT=port):
            submitted_run = lw.rescore(RECIPE, 1, where={})
            states = lw.follow_run(submitted_run.id, every=0.1)
            assert next(states).status == "queued"

        def restart() -> None:
            assert stopped.wait(60)
            with running_api(settings, LINEWATCH_PORT=port) as http:
                http.post(f"/v1/rescore-runs/{submitted_run.id}/cancel").raise_for_status()
                assert ended.wait(60)

        ended = threading.Event()
        again = threading.Thread(target=restart)
        again.start()
        try:
            last = [submitted_run.status for submitted_run in states][-1]
        finally:
            ended.set()
            again.join(60)
    assert last == "cancelled"
