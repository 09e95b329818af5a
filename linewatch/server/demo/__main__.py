"""`python -m linewatch.server.demo`: train, activate, submit a burst, print the results, and serve until Ctrl-C."""

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
from core.vision.input.record import Preprocessing
from core.vision.train import TrainingOptions
from core.vision.training.dataset import dataset_digest, file_digests
from linewatch.cli import failures
from linewatch.cli.commands.models import register
from linewatch.cli.terminal import advance_to, progress_bar
from linewatch.client import Client
from linewatch.server.commands.training_progress import train_with_progress
from linewatch.server.demo.cells import Cells, link_images
from linewatch.server.demo.report import (
    Burst,
    ReferenceResult,
    measure_detection,
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
_ALONE = 20  # images that are sent one at a time
_OPTIONS = TrainingOptions(architecture="feature-gaussian")
"""The fastest detector that works on these cells; `auto` would take minutes to find that out."""
_REFERENCE_OPTIONS = TrainingOptions(architecture="conv-autoencoder", score_method="mse")
_BATCH_WAIT = 0.5  # seconds that one request waits for the batch
_BURST_TIMEOUT = 600.0  # seconds


def main() -> int:
    """Run the demo.

    Returns:
        The exit code: 0 if it is done or was stopped, 1 if it failed, 130 if it was interrupted before the results.
    """
    arguments = _arguments()
    out = Console(highlight=False, width=None if sys.stdout.isatty() else _WIDTH_WITHOUT_TERMINAL)
    signal.signal(signal.SIGTERM, _as_ctrl_c)
    try:
        _run(out, arguments.data, arguments.port, serve=not arguments.exit)
    except KeyboardInterrupt:
        out.print("\nInterrupted. The next run skips the steps that are done.")
        return failures.INTERRUPTED
    except Exception as error:
        failure = failures.explain(error)
        if failure is None:  # unexpected: show the traceback
            raise
        failures.print_error(failure.line)
        return failure.exit_code
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m linewatch.server.demo", description=__doc__)
    parser.add_argument("--exit", action="store_true", help="stop after the results are printed")
    parser.add_argument("--data", type=Path, default=_default_data(), help="the data directory (%(default)s)")
    parser.add_argument("--port", type=int, default=PORT, help="the port to serve on (%(default)s)")
    return parser.parse_args()


def _default_data() -> Path:
    """Return a folder below the current one; for root, one that the database's unprivileged account can read."""
    return Path("/var/lib/linewatch-demo") if os.geteuid() == 0 else Path.cwd() / ".demo"


def _as_ctrl_c(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _run(out: Console, requested_data: Path, port: int, *, serve: bool) -> None:
    data, _ = open_data_directory(requested_data)
    cells = link_images(data)
    out.rule("[bold]Linewatch demo[/]", align="left")
    out.print(
        "Electroluminescence images of solar cells (ELPV dataset, CC BY-NC-SA 4.0): "
        f"{len(cells.training)} good cells for training, and a burst of {len(cells.good)} other good cells and "
        f"{len(cells.defective)} defective ones. {cells.unsure} cells are left out because the experts were unsure. "
        f"All data is in {data}."
    )
    if not port_is_free(port):
        out.print(f"Port {port} is in use, so the demo picks a free port.")
        port = 0
    _step(out, 1, "Starting the system: PostgreSQL, Valkey, api, dispatcher, workers")
    started = time.monotonic()
    with running(data, port) as system, Client(system.url) as client:
        out.print(f"Ready after {time.monotonic() - started:.1f} s: {system.url}")
        _step(out, 2, f"Training two detectors on {len(cells.training)} good cells (2 to 3 minutes on two cores)")
        version = _active_version(out, client, cells, RECIPE, _OPTIONS)
        reference = _active_version(out, client, cells, REFERENCE, _REFERENCE_OPTIONS)
        client.change_recipe(REFERENCE, role="reference")
        _step(out, 3, f"Submitting {len(cells.good) + len(cells.defective)} images in one request")
        burst = _run_burst(client, cells)
        reference_inspections = _split_by_truth(client, _submit(client, cells, REFERENCE).batch)
        _step(out, 4, "Results")
        _report(out, burst, cells, version, ReferenceResult(reference, *reference_inspections), system.url)
        if serve:
            out.print(f"\nOpen [bold]{system.url}/[/] in a browser. Ctrl-C stops the system.")
            try:
                system.serve()
            except KeyboardInterrupt:
                out.print("\nStopping.")
        else:
            out.print("\nStopping because of --exit. Without it, the system serves until Ctrl-C.")


def _step(out: Console, number: int, title: str) -> None:
    out.print(f"\n[bold]{number}. {title}[/]")


def _active_version(out: Console, client: Client, cells: Cells, recipe: str, options: TrainingOptions) -> ModelVersion:
    """Return the active version that was trained on these cells with these options.

    Reuses the version of an earlier run, or trains a new one.
    """
    client.create_recipe(recipe, exist_ok=True)
    paths = sorted(cells.training)
    digest = dataset_digest(cells.folder, paths, file_digests(paths))
    for version in client.model_versions(recipe):
        if version.state == "ready" and _was_trained_with(version, digest, options):
            out.print(f"Version {version.version} of recipe {recipe} was trained on the same {len(paths)} cells.")
            return version if version.active else client.activate(recipe, version.version)
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="linewatch-") as folder:
        bundle = Path(folder, "bundle")
        manifest = train_with_progress(cells.folder, bundle, options)
        # By force, because the reference is not fit for use: it is there to be compared with.
        version = register(client, recipe, bundle, activate=True, force=True)
    out.print(_describe_training(manifest, version, time.monotonic() - started))
    return version


def _was_trained_with(version: ModelVersion, digest: str, options: TrainingOptions) -> bool:
    training = version.manifest["training"]
    return (
        training is not None and training["training_set_digest"] == digest and training["options"] == options.recorded()
    )


def _describe_training(manifest: Manifest, version: ModelVersion, seconds: float) -> str:
    training = manifest.training
    assert training is not None  # noqa: S101 - this run trained it
    parts = training.parts
    return (
        f"{manifest.architecture.name}: trained on {parts['training']} cells; its threshold comes from the same cells, "
        "each scored by a model that was not trained on it. A worker loaded the bundle and "
        f"reproduced its golden scores. Version {version.version} of recipe {version.recipe} is active "
        f"after {seconds:.0f} s."
    )


def _run_burst(client: Client, cells: Cells) -> Burst:
    """Submit the held-out cells at once, wait for their verdicts, then send a few one at a time."""
    client.submit(cells.good[0], recipe=RECIPE, lot_id="warm-up", wait=60)  # loads the model
    submitted = _submit(client, cells, RECIPE)
    good, defective = _split_by_truth(client, submitted.batch)
    alone = [_measure_latency(client, path) for path in cells.good[:_ALONE]]
    return Burst(good, defective, submitted.refused, submitted.accepted_after, submitted.finished_after, alone)


@dataclass(frozen=True)
class _Submitted:
    """A finished batch of all held-out cells; times in seconds from the first byte sent."""

    batch: Batch
    refused: int
    accepted_after: float
    finished_after: float


def _submit(client: Client, cells: Cells, recipe: str) -> _Submitted:
    images = {f"good/{path.name}": path for path in cells.good}
    images |= {f"defective/{path.name}": path for path in cells.defective}
    with progress_bar("sent", len(images)) as sent_bar, progress_bar("verdicts", len(images)) as verdict_bar:
        started = time.monotonic()
        progress = partial(advance_to, sent_bar)
        accepted = client.submit_batch(dict(images), recipe=recipe, lot_id="burst", progress=progress)
        accepted_after = time.monotonic() - started
        batch = accepted
        while not batch.final:
            batch = client.batch(accepted.id, wait=_BATCH_WAIT)
            advance_to(verdict_bar, batch.done)
            if time.monotonic() - started > _BURST_TIMEOUT:
                raise failures.CommandFailed(f"only {batch.done} verdicts after {_BURST_TIMEOUT:g} s: see the log")
    return _Submitted(batch, len(accepted.errors), accepted_after, time.monotonic() - started)


def _split_by_truth(client: Client, batch: Batch) -> tuple[list[Inspection], list[Inspection]]:
    """Return the inspections of good and of defective cells, each sorted by name."""
    inspections = client.inspections(batch_id=batch.id, page_size=1000)
    by_name = sorted(inspections, key=lambda inspection: inspection.external_id or "")
    good = [inspection for inspection in by_name if (inspection.external_id or "").startswith("good/")]
    return good, [inspection for inspection in by_name if inspection not in good]


def _measure_latency(client: Client, path: Path) -> float:
    """Return the milliseconds from upload to verdict of a single image."""
    started = time.monotonic()
    client.submit(path, recipe=RECIPE, lot_id="alone", wait=60)
    return (time.monotonic() - started) * 1000


def _report(
    out: Console, burst: Burst, cells: Cells, version: ModelVersion, reference: ReferenceResult, url: str
) -> None:
    print_speed(out, burst)
    out.print()
    print_counts(out, burst)
    out.print()
    preprocessing = Preprocessing.model_validate(version.manifest["preprocessing"])
    print_detection(out, measure_detection(burst, cells, preprocessing), burst, version, reference)
    out.print()
    print_verdicts(out, burst, url)


if __name__ == "__main__":
    sys.exit(main())
