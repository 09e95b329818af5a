"""Small files that are expensive to decode fail with a code; other images are scored."""

import httpx

from linewatch import Client
from tests.fixtures.hostile_images import scan_bomb
from tests.fixtures.part_images import png
from tests.fixtures.running_system import System

NEIGHBOURS = 40


def test_scan_bombs_do_not_delay_other_images(system: System, recipe: str) -> None:
    bomb = scan_bomb(60_000, 1900)  # the limits of the test system are 1 MB and 4 megapixels
    images = {f"bomb-{number}.jpg": bomb for number in range(3)}
    images |= {f"{number}.png": png(number) for number in range(NEIGHBOURS)}
    with Client(system.url) as lw:
        batch = lw.submit_batch(images, recipe=recipe, wait=120)
        assert batch.final
        assert (batch.counts["completed"], batch.counts["failed"]) == (NEIGHBOURS, 3)
        failed = list(lw.inspections(batch_id=batch.id, status="failed"))
        assert {inspection.error.code for inspection in failed if inspection.error} == {"image_undecodable"}
    assert httpx.get(f"{system.url}/readyz").status_code == 200
