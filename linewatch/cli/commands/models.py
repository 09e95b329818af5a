"""`linewatch models`: the model versions of a recipe."""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from linewatch.cli.failures import CommandFailed, WrongUse
from linewatch.cli.options import DEFAULT_URL, Activate, ApiKey, AsJson, Recipe, Url, Version, client
from linewatch.cli.terminal import print_json, print_table, remark, results

if TYPE_CHECKING:
    from linewatch.client import Client
    from linewatch.types.rescoring import RescoreRun
    from linewatch.types.results import ModelVersion, Threshold

app = typer.Typer(help="The model versions of a recipe.")


def describe_calibration(calibration: Mapping[str, Any] | None) -> str:
    """What a threshold costs, for people; a threshold without a calibration has no known cost."""
    if calibration is None:
        return "set by hand, its cost is not known"
    low, high = calibration["confidence_interval"]
    review, groups = calibration.get("review"), calibration.get("groups")
    reviewed = f", and {review['expected_rate']:.1%} rejected or reviewed" if review else ""
    dependent = groups is not None and groups < calibration["sample_size"]
    return (
        f"about {calibration['expected_false_reject_rate']:.1%} of good parts will be rejected{reviewed} "
        f"({calibration['confidence']:.0%} interval {low:.1%} to {high:.1%}, "
        f"from {calibration['sample_size']} held-out good parts{f' in {groups} groups' if dependent else ''})"
    )


def threshold_text(threshold: "Threshold") -> str:
    """A threshold with its meaning, for people."""
    review = f", review from {threshold.review_threshold:.6g}" if threshold.review_threshold is not None else ""
    return f"{threshold.threshold:.6g}{review}: {describe_calibration(threshold.calibration)}"


def active_version(system: "Client", recipe: str) -> int:
    """The number of the version that scores.

    Raises:
        CommandFailed: there is none.
    """
    for one in system.model_versions(recipe):
        if one.active:
            return one.version
    raise CommandFailed(f"recipe {recipe!r} has no active version: `linewatch train --recipe {recipe} --data DIR`")


def register(system: "Client", recipe: str, bundle: Path, *, activate: bool) -> "ModelVersion":
    """Upload a bundle, to a recipe that is made where it is missing, and wait until it may be activated."""
    system.create_recipe(recipe, exist_ok=True)
    version = system.upload_bundle(recipe, bundle)
    if activate:
        return system.activate(recipe, version.version)
    return system.model_version(recipe, version.version)


def print_outcome(version: "ModelVersion") -> None:
    """Say what became of an uploaded version."""
    results().print(f"Version {version.version} of recipe {version.recipe} is {_state(version)}.", markup=False)
    if not version.active:
        command = f"linewatch models activate --recipe {version.recipe} --version {version.version}"
        results().print(f"To let it score: {command}", markup=False)


def _state(version: "ModelVersion", challenger: "RescoreRun | None" = None) -> str:
    """What a version does; a challenger of its recipe may be this one."""
    if challenger is not None and challenger.model.version == version.version:
        return f"{version.state}, challenges with {challenger.source['live']['share']:.3g} of the images"
    return f"{version.state} and active" if version.active else version.state


@app.command("list")
def list_versions(recipe: Recipe, url: Url = DEFAULT_URL, api_key: ApiKey = None, as_json: AsJson = False) -> None:
    """List the versions of a recipe, newest first."""
    with client(url, api_key) as system:
        versions = system.model_versions(recipe)
        challenger = system.challenger(recipe)
    if as_json:
        print_json([one.model_dump(mode="json") for one in versions])
        return
    print_table(
        ["version", "state", "architecture", "threshold", "made", "sha256"],
        [
            [
                one.version,
                _state(one, challenger),
                one.manifest["architecture"]["name"],
                threshold_text(one.threshold),
                f"{one.created_at:%Y-%m-%d %H:%M}",
                one.sha256[:12],
            ]
            for one in versions
        ],
        right=["version"],
    )


@app.command()
def show(
    recipe: Recipe, version: Version = None, url: Url = DEFAULT_URL, api_key: ApiKey = None, as_json: AsJson = False
) -> None:
    """Show one version: its threshold and what it means, how it was trained, what it detected."""
    with client(url, api_key) as system:
        found = system.model_version(recipe, version or active_version(system, recipe))
    if as_json:
        print_json(found.model_dump(mode="json"))
        return
    manifest = found.manifest
    out = results()
    out.print(f"Version {found.version} of recipe {found.recipe} is {_state(found)}.", markup=False)
    if found.rejection:
        out.print(f"Rejected: {found.rejection}", markup=False)
    out.print(f"Architecture: {manifest['architecture']['name']}, score {manifest['score_method']}")
    for one in found.thresholds:
        where = f" at station {one.station_id}" if one.station_id else ""
        out.print(f"Threshold{where}: {threshold_text(one)}", markup=False)
    if manifest["training"]:
        parts = ", ".join(f"{count} for {name}" for name, count in sorted(manifest["training"]["parts"].items()))
        out.print(f"Trained on good parts: {parts}; epochs: {manifest['training']['epochs']}")
    print_metrics(manifest["metrics"])
    out.print(f"Bundle: {found.sha256}")


def print_metrics(metrics: Mapping[str, Any] | None) -> None:
    """Print how well defects were detected, with trivial controls beside it."""
    if metrics is None:
        return
    low, high = metrics["auroc_interval"]
    results().print(
        f"On {metrics['good']} good and {metrics['defective']} defective test images: "
        f"AUROC {metrics['auroc']:.3f} (95% interval {low:.3f} to {high:.3f}), "
        f"{metrics['recall']:.1%} of the defective found, {metrics['false_reject_rate']:.1%} of the good rejected"
    )
    if metrics.get("pixel_auroc") is not None:
        results().print(
            f"Where the defects are: pixel AUROC {metrics['pixel_auroc']:.3f}, AUPRO {metrics['aupro']:.3f}"
        )
    controls = sorted(metrics["controls"].items(), key=lambda one: -one[1])
    results().print("Trivial controls: " + ", ".join(f"{name} {value:.3f}" for name, value in controls))
    if controls and controls[0][1] >= metrics["auroc"]:
        results().print(f"The control {controls[0][0]} is as good as the detector: it has shown nothing here.")


@app.command("import")
def import_bundle(
    file: Annotated[Path, typer.Argument(metavar="BUNDLE|FILE.pth", help="A bundle, or a plain state dict.")],
    recipe: Recipe,
    threshold: Annotated[
        float | None, typer.Option(help="For a state dict: scores at or above it are ng. A bundle has its own.")
    ] = None,
    input_size: Annotated[int, typer.Option(min=8, help="For a state dict: both sides of its input, pixels.")] = 128,
    activate: Activate = False,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """Enter a bundle from elsewhere as a version.

    Or a plain .pth state dict of the reference network, with the threshold that it was used with.
    """
    is_state_dict = file.suffix.lower() in (".pth", ".pt")
    if is_state_dict and threshold is None:
        raise WrongUse("a state dict has no threshold: name the one it was used with, --threshold T")
    if not is_state_dict and threshold is not None:
        raise WrongUse("a bundle brings its own threshold: leave --threshold out, and `linewatch calibrate` later")
    if not file.exists():
        raise WrongUse(f"there is no {file}")
    with client(url, api_key) as system, tempfile.TemporaryDirectory(prefix="linewatch-") as folder:
        system.recipes()  # fail now if the system cannot be reached
        bundle = file
        if threshold is not None:
            bundle = _converted(file, Path(folder, "bundle"), threshold, input_size)
        version = register(system, recipe, bundle, activate=activate)
    if as_json:
        print_json(version.model_dump(mode="json"))
        return
    print_outcome(version)
    results().print(f"Threshold: {threshold_text(version.threshold)}", markup=False)


def _converted(file: Path, bundle: Path, threshold: float, input_size: int) -> Path:
    from core.vision.bundle.state_dict import import_state_dict

    import_state_dict(file, bundle, threshold=threshold, input_size=input_size)
    return bundle


@app.command()
def activate(
    recipe: Recipe,
    version: Annotated[int, typer.Option(min=1, help="The version that is to score.")],
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """Let a ready version score from the next minibatch on."""
    with client(url, api_key) as system:
        now = system.activate(recipe, version)
    _print_active(now, as_json)


@app.command()
def rollback(recipe: Recipe, url: Url = DEFAULT_URL, api_key: ApiKey = None, as_json: AsJson = False) -> None:
    """Go back to the version that was active before."""
    with client(url, api_key) as system:
        now = system.rollback(recipe)
    _print_active(now, as_json)


@app.command()
def challenge(
    recipe: Recipe,
    version: Annotated[int, typer.Option(min=1, help="The version that challenges the active one.")],
    share: Annotated[float, typer.Option(min=0, max=1, help="Of live images, above 0 and up to 1.")] = 0.1,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """Let a ready version score a share of live images in the active one's shadow.

    It changes no result. What it would have changed is in the report of its run.
    """
    if share == 0:
        raise WrongUse("a challenger needs a share above 0: --share 0.1 is a tenth of the images")
    with client(url, api_key) as system:
        run = system.set_challenger(recipe, version, share=share)
    if as_json:
        print_json(run.model_dump(mode="json"))
        return
    remark(f"Version {version} challenges with {share:.3g} of the images from now on, as run {run.id}.")


@app.command()
def unchallenge(recipe: Recipe, url: Url = DEFAULT_URL, api_key: ApiKey = None) -> None:
    """End the challenger of a recipe; its run and its results stay."""
    with client(url, api_key) as system:
        run = system.challenger(recipe)
        if run is None:
            raise CommandFailed(f"recipe {recipe!r} has no challenger")
        system.end_challenger(recipe)
    remark(f"Version {run.model.version} challenges no more; what it has scored is run {run.id}.")


def _print_active(version: "ModelVersion", as_json: bool) -> None:
    if as_json:
        print_json(version.model_dump(mode="json"))
        return
    remark(f"Version {version.version} of recipe {version.recipe} scores now.")
