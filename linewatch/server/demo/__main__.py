"""`python -m linewatch.server.demo`: train, activate, submit a burst, print the results, keep serving until Ctrl-C."""

import argparse
import os
import signal
import sys
import tempfile
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import FrameType

from rich.console import Console

from core.vision.bundle.manifest import Manifest
from core.vision.input.preprocessing import Preprocessing
from core.vision.train import TrainingOptions
from core.vision.training.dataset import dataset_digest, file_digests
from linewatch.cli import failures
from linewatch.cli.commands.models import register
from linewatch.cli.terminal import advance_to, progress_bar
from linewatch.client import Client
from linewatch.server.commands.train import train_with_progress
from linewatch.server.demo.cells import Cells, lay_out
from linewatch.server.demo.report import (
    Burst,
    ReferenceResult,
    detection,
    print_counts,
    print_detection,
    print_speed,
    print_verdicts,
)
from linewatch.server.demo.system import port_is_free, running
from linewatch.server.embedded.data import open_data_directory
from linewatch.types.results import Batch, Inspection, ModelVersion

RECIPE = "solar-cells"
REFERENCE = "solar-cells-reference"
PORT = 8000
_WIDTH_WITHOUT_TERMINAL = 110
_ALONE = 20  # images sent one at a time
_AS_BEFORE = TrainingOptions(architecture="conv-autoencoder", score_method="mse")
_BATCH_WAIT = 0.5  # seconds that one request waits for the batch
_BURST_PATIENCE = 600.0  # seconds


def main() -> int:
    """Run the demo: 0 done or stopped, 1 failed, 130 interrupted before the figures were printed."""
    arguments = _arguments()
    out = Console(highlight=False, width=None if sys.stdout.isatty() else _WIDTH_WITHOUT_TERMINAL)
    signal.signal(signal.SIGTERM, _as_ctrl_c)
    try:
        _run(out, arguments.data, arguments.port, serve=not arguments.exit)
    except KeyboardInterrupt:
        out.print("\nInterrupted. The next run continues with what is done.")
        return failures.INTERRUPTED
    except Exception as error:
        failure = failures.explain(error)
        if failure is None:  # a defect: the traceback is wanted
            raise
        failures.print_error(failure.line)
        return failure.exit_code
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m linewatch.server.demo", description=__doc__)
    parser.add_argument("--exit", action="store_true", help="end once the figures are printed")
    parser.add_argument("--data", type=Path, default=_default_data(), help="where everything is kept (%(default)s)")
    parser.add_argument("--port", type=int, default=PORT, help="where to serve (%(default)s)")
    return parser.parse_args()


def _default_data() -> Path:
    """Below the current folder; as root a folder that the database's unprivileged account can reach."""
    return Path("/var/lib/linewatch-demo") if os.geteuid() == 0 else Path.cwd() / ".demo"


def _as_ctrl_c(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _run(out: Console, given: Path, port: int, *, serve: bool) -> None:
    data, _ = open_data_directory(given)
    cells = lay_out(data)
    out.rule("[bold]Linewatch demo[/]", align="left")
    out.print(
        f"Electroluminescence images of solar cells (ELPV dataset, CC BY-NC-SA 4.0): {len(cells.training)} good ones "
        f"for training; a burst of {len(cells.good)} other good and {len(cells.defective)} defective ones. "
        f"{cells.unsure} are left out because the experts were unsure. All data is in {data}."
    )
    if not port_is_free(port):
        out.print(f"Port {port} is taken, so a free one is used.")
        port = 0
    _step(out, 1, "Starting the system: PostgreSQL, Valkey, api, dispatcher, workers")
    started = time.monotonic()
    with running(data, port) as system, Client(system.url) as client:
        out.print(f"It took {time.monotonic() - started:.1f} s: {system.url}")
        _step(out, 2, f"Training two detectors on {len(cells.training)} good cells, two or three minutes on two cores")
        version = _version(out, client, cells, RECIPE, TrainingOptions())
        reference = _version(out, client, cells, REFERENCE, _AS_BEFORE)
        _step(out, 3, f"Submitting {len(cells.good) + len(cells.defective)} images in one request")
        burst = _burst(client, cells)
        beside = _by_truth(client, _submitted(client, cells, REFERENCE).batch)
        _step(out, 4, "Results")
        _report(out, burst, cells, version, ReferenceResult(reference, *beside), system.url)
        if serve:
            out.print(f"\nThe page: [bold]{system.url}/[/]   Ctrl-C stops the system.")
            try:
                system.serve()
            except KeyboardInterrupt:
                out.print("\nStopping.")
        else:
            out.print("\nStopping, because of --exit. Without it, the page is served until Ctrl-C.")


def _step(out: Console, number: int, what: str) -> None:
    out.print(f"\n[bold]{number}. {what}[/]")


def _version(out: Console, client: Client, cells: Cells, recipe: str, options: TrainingOptions) -> ModelVersion:
    """The active version, trained on exactly these cells with these options: an earlier run's, or a new one."""
    client.create_recipe(recipe, exist_ok=True)
    paths = sorted(cells.training)
    digest = dataset_digest(cells.folder, paths, file_digests(paths))
    for known in client.model_versions(recipe):
        if known.state == "ready" and _is_of(known, digest, options):
            out.print(f"Version {known.version} of recipe {recipe} was trained on the same {len(paths)} cells.")
            return known if known.active else client.activate(recipe, known.version)
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="linewatch-") as folder:
        bundle = Path(folder, "bundle")
        manifest = train_with_progress(cells.folder, bundle, options)
        version = register(client, recipe, bundle, activate=True)
    out.print(_trained(manifest, version, time.monotonic() - started))
    return version


def _is_of(version: ModelVersion, digest: str, options: TrainingOptions) -> bool:
    training = version.manifest["training"]
    return (
        training is not None and training["training_set_digest"] == digest and training["options"] == options.recorded()
    )


def _trained(manifest: Manifest, version: ModelVersion, seconds: float) -> str:
    training = manifest.training
    assert training is not None  # noqa: S101 - it was trained here
    parts = training.parts
    return (
        f"{manifest.architecture.name}: {training.epochs} epochs on {parts['training']} cells, {parts['validation']} "
        f"to tell when to stop, {parts['calibration']} to calibrate the threshold. A worker has loaded the bundle and "
        f"reproduced its golden scores: version {version.version} of recipe {version.recipe} is active, "
        f"after {seconds:.0f} s."
    )


def _burst(client: Client, cells: Cells) -> Burst:
    """Submit the held-out cells at once, wait for their verdicts, then send a few one at a time."""
    client.submit(cells.good[0], recipe=RECIPE, lot_id="warm-up", wait=60)  # the version is loaded by now
    submitted = _submitted(client, cells, RECIPE)
    good, defective = _by_truth(client, submitted.batch)
    alone = [_alone(client, path) for path in cells.good[:_ALONE]]
    return Burst(good, defective, submitted.refused, submitted.accepted_after, submitted.finished_after, alone)


@dataclass(frozen=True)
class _Submitted:
    """A finished batch of all held-out cells; times in seconds from the first byte sent."""

    batch: Batch
    refused: int
    accepted_after: float
    finished_after: float


def _submitted(client: Client, cells: Cells, recipe: str) -> _Submitted:
    images = {f"good/{path.name}": path for path in cells.good}
    images |= {f"defective/{path.name}": path for path in cells.defective}
    with progress_bar("sent", len(images)) as sent_bar, progress_bar("verdicts", len(images)) as verdict_bar:
        started = time.monotonic()
        sent = client.submit_batch(dict(images), recipe=recipe, lot_id="burst", progress=partial(advance_to, sent_bar))
        accepted_after = time.monotonic() - started
        batch = sent
        while not batch.final:
            batch = client.batch(sent.id, wait=_BATCH_WAIT)
            advance_to(verdict_bar, batch.done)
            if time.monotonic() - started > _BURST_PATIENCE:
                raise failures.CommandFailed(f"only {batch.done} verdicts after {_BURST_PATIENCE:g} s: see the log")
    return _Submitted(batch, len(sent.errors), accepted_after, time.monotonic() - started)


def _by_truth(client: Client, batch: Batch) -> tuple[list[Inspection], list[Inspection]]:
    """The inspections of good and of defective cells, in the order of their names, as the images lie."""
    found = sorted(client.inspections(batch_id=batch.id, page_size=1000), key=lambda one: one.external_id or "")
    good = [one for one in found if (one.external_id or "").startswith("good/")]
    return good, [one for one in found if one not in good]


def _alone(client: Client, path: Path) -> float:
    started = time.monotonic()
    client.submit(path, recipe=RECIPE, lot_id="alone", wait=60)
    return (time.monotonic() - started) * 1000


def _report(out: Console, burst: Burst, cells: Cells, version: ModelVersion, beside: ReferenceResult, url: str) -> None:
    print_speed(out, burst)
    out.print()
    print_counts(out, burst)
    out.print()
    preprocessing = Preprocessing.model_validate(version.manifest["preprocessing"])
    print_detection(out, detection(burst, cells, preprocessing), burst, version, beside)
    out.print()
    print_verdicts(out, burst, url)


if __name__ == "__main__":
    sys.exit(main())
