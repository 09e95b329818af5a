"""Images and bundles that are at fault: they fail alone."""

import io
import os
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from PIL.PngImagePlugin import PngInfo

from tests.fixtures.faults.injection import Target
from tests.fixtures.faults.recovery import verify
from tests.fixtures.faults.steady_uploads import Uploads
from tests.fixtures.part_images import part, png
from tests.fixtures.running_system import System

INJECTED = Path(__file__).parent / "killing_decoder"


def _killing_image() -> bytes:
    text = PngInfo()
    text.add_text("kill", "yes")
    buffer = io.BytesIO()
    part(1).save(buffer, "PNG", pnginfo=text)
    return buffer.getvalue()


@pytest.fixture
def fragile(reachable_folder: Path) -> Iterator[Target]:
    """A system whose decoders are killed by some images."""
    folder = reachable_folder / "fragile"
    folder.mkdir()
    path = os.pathsep.join(filter(None, [str(INJECTED), os.environ.get("PYTHONPATH")]))
    with System.running(folder, "--scoring-workers", "2", PYTHONPATH=path) as system:
        yield Target.of(system)


def test_an_image_that_kills_its_process_in_a_full_minibatch(fragile: Target, bundle: Path) -> None:
    uploads = Uploads.of_a_new_recipe(fragile.system.url, bundle, seed=2)
    workers = fragile.system.children("worker.scoring")
    for worker in workers:
        worker.suspend()
    uploads.send_batch(31)
    killer = uploads.send_image(_killing_image())
    uploads.send_batch(31)
    for worker in workers:
        worker.resume()
    verify(fragile, uploads, failed=1)
    failed = httpx.get(f"{fragile.system.url}/v1/inspections/{killer}").json()
    assert (failed["status"], failed["error"]["code"]) == ("failed", "poison")


def test_a_flipped_byte_in_a_stored_image(target: Target, uploads: Uploads) -> None:
    data = png(123_456)
    workers = target.system.children("worker.scoring")
    for worker in workers:
        worker.suspend()
    damaged = uploads.send_image(data)
    uploads.send_batch(20)
    file = next(file for file in target.store.rglob(uploads.accepted[0].sha256))
    file.write_bytes(bytes([data[0], data[1] ^ 1]) + data[2:])
    for worker in workers:
        worker.resume()
    target.oracle.require_final(uploads.ids, 60)
    found = httpx.get(f"{target.system.url}/v1/inspections/{damaged}").json()
    assert (found["status"], found["error"]["code"]) == ("failed", "image_checksum_mismatch")
    file.write_bytes(data)
    verify(target, uploads, failed=1)


def test_a_tampered_bundle_fails_no_image(target: Target, uploads: Uploads, another_bundle: Path) -> None:
    """Workers that cannot load a version are unready and release its images; they are scored when it is whole again."""
    fresh = Uploads.of_a_new_recipe(target.system.url, another_bundle, seed=3)
    version = httpx.get(f"{target.system.url}/v1/recipes/{fresh.recipe}/model-versions/1").json()
    file = target.store / "models" / f"{version['sha256']}.tar"
    whole = file.read_bytes()
    changed = bytearray(whole)
    changed[len(changed) // 2] ^= 1
    file.write_bytes(changed)
    for worker in target.system.children("worker.scoring"):
        worker.kill()  # the new ones have not loaded it
    fresh.send_batch(20)
    uploads.send_batch(20)
    target.oracle.require_final(uploads.ids, 60)  # another recipe is not held up
    assert target.oracle.count_final(fresh.ids) == 0
    file.write_bytes(whole)
    verify(target, fresh)
    verify(target, uploads)
