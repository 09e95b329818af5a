"""Every process is restarted in turn, twice around, under steady load: nothing is lost and nothing is refused."""

from pathlib import Path

import pytest

from linewatch.server.embedded.servers import EmbeddedServers
from tests.fixtures.rolling.load import Load
from tests.fixtures.rolling.plant import Plant
from tests.fixtures.rolling.processes import NEW

ROUNDS = 2


@pytest.mark.timeout(1200)
def test_a_rolling_restart_of_every_process(
    servers: EmbeddedServers, reachable_folder: Path, bundle: Path, closing_lines: list[str]
) -> None:
    folder = reachable_folder / "rolling"
    folder.mkdir()
    with Plant.prepared(servers.database_url, servers.redis_url, folder) as plant:
        plant.migrate(NEW)
        plant.start(dict.fromkeys(plant.services, NEW))
        with Load.on(plant, bundle, per_second=20) as load:
            for name in ROUNDS * list(plant.services):
                plant.restart(name)
                load.go_on(10)
                load.restarts += 1
        assert load.faults() == []
        closing_lines.append(load.closing_line())
        plant.stop()
