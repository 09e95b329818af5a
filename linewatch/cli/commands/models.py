"""`linewatch models`: the model versions of a recipe."""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from linewatch.cli.failures import CommandFailed, WrongUse
from linewatch.cli.groups import group
from linewatch.cli.options import (
    FOLDER_OR_FILE,
    activate_option,
    client,
    connection_options,
    force_option,
    recipe_option,
    system_options,
    version_option,
)
from linewatch.cli.server_parts import server_part
from linewatch.cli.terminal import print_json, print_table, remark

if TYPE_CHECKING:
    from linewatch.client import Client
    from linewatch.types.rescoring import RescoreRun
    from linewatch.types.results import ModelVersion, Threshold

models = group("models", help="The model versions of a recipe.")


def describe_calibration(calibration: Mapping[str, Any] | None) -> str:
    """Describe the expected false-reject rate of a threshold."""
    if calibration is None:
        return "set by hand, so its false-reject rate is not known"
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
    """Describe a threshold and what it means."""
    review = f", review from {threshold.review_threshold:.6g}" if threshold.review_threshold is not None else ""
    return f"{threshold.threshold:.6g}{review}: {describe_calibration(threshold.calibration)}"


def active_version(system: "Client", recipe: str) -> int:
    """Return the number of the active version.

    Raises:
        CommandFailed: no version is active.
    """
    for version in system.model_versions(recipe):
        if version.active:
            return version.version
    raise CommandFailed(
        f"recipe {recipe!r} has no active version: run `linewatch models activate` or `linewatch train`"
    )


def register(system: "Client", recipe: str, bundle: Path, *, activate: bool, force: bool = False) -> "ModelVersion":
    """Upload a bundle and wait until its version is ready. Creates the recipe if it does not exist.

    A version that is not fit for use is activated only with `force`: call `refuse_unfit` once its result is printed.
    """
    system.create_recipe(recipe, exist_ok=True)
    version = system.upload_bundle(recipe, bundle)
    if activate and (force or unfit_because(version.manifest) is None):
        return system.activate(recipe, version.version)
    return system.model_version(recipe, version.version)


def print_outcome(version: "ModelVersion") -> None:
    """Print the state of an uploaded version, and how to activate it."""
    click.echo(f"Version {version.version} of recipe {version.recipe} is {_state(version)}.")
    if not version.active:
        click.echo(f"To activate it: {_activation(version)}")


def _activation(version: "ModelVersion") -> str:
    force = "" if unfit_because(version.manifest) is None else " --force"
    return f"linewatch models activate --recipe {version.recipe} --version {version.version}{force}"


def unfit_because(manifest: Mapping[str, Any]) -> str | None:
    """Return why the version is not fit for use; None if it is, or if that was not measured."""
    detectability = manifest.get("detectability")
    if detectability is None or detectability["fit_for_use"]:
        return None
    return "; ".join(detectability["reasons"])


def refuse_unfit(version: "ModelVersion") -> None:
    """Check that a version may be activated without `--force`.

    Raises:
        CommandFailed: it is not fit for use.
    """
    reason = unfit_because(version.manifest)
    if reason is None:
        return
    outcome, remedy = "is active, but", "to replace it, train a better one"
    if not version.active:
        outcome, remedy = "was not activated:", f"train a better one, or activate it with `{_activation(version)}`"
    raise CommandFailed(
        f"version {version.version} of recipe {version.recipe!r} {outcome} it is not fit for use, because {reason}; "
        f"{remedy}"
    )


def print_detectability(detectability: Mapping[str, Any] | None) -> None:
    """Print what a version can find and, if it is not fit for use, why, and what to try."""
    if detectability is None:
        return
    for sentence in detectability["statement"]:
        click.echo(sentence)
    if not detectability["fit_for_use"]:
        click.echo(f"NOT FIT FOR USE: {'; '.join(detectability['reasons'])}.")
        click.echo("What to try:")
        for advice in detectability["advice"]:
            click.echo(f"- {advice}")


def _state(version: "ModelVersion", challenger: "RescoreRun | None" = None) -> str:
    """Describe a version's state. `challenger` is the challenger of its recipe, which may be this version."""
    if challenger is not None and challenger.model.version == version.version:
        return f"{version.state}, challenges with {challenger.source['live']['share']:.3g} of the images"
    return f"{version.state} and active" if version.active else version.state


@models.command("list")
@recipe_option
@system_options
def list_versions(recipe: str, url: str, api_key: str | None, as_json: bool) -> None:
    """List the versions of a recipe, newest first."""
    with client(url, api_key) as system:
        versions = system.model_versions(recipe)
        challenger = system.challenger(recipe)
    if as_json:
        print_json([version.document for version in versions])
        return
    print_table(
        ["version", "state", "architecture", "threshold", "created", "sha256"],
        [
            [
                version.version,
                _state(version, challenger),
                version.manifest["architecture"]["name"],
                threshold_text(version.threshold),
                f"{version.created_at:%Y-%m-%d %H:%M}",
                version.sha256[:12],
            ]
            for version in versions
        ],
        right=["version"],
    )


@models.command()
@recipe_option
@version_option
@system_options
def show(recipe: str, version: int | None, url: str, api_key: str | None, as_json: bool) -> None:
    """Show one version: its thresholds, training and detection metrics."""
    with client(url, api_key) as system:
        shown = system.model_version(recipe, version or active_version(system, recipe))
    if as_json:
        print_json(shown.document)
        return
    manifest = shown.manifest
    click.echo(f"Version {shown.version} of recipe {shown.recipe} is {_state(shown)}.")
    if shown.rejection:
        click.echo(f"Rejected: {shown.rejection}")
    click.echo(f"Architecture: {manifest['architecture']['name']}, score {manifest['score_method']}")
    for threshold in shown.thresholds:
        place = f" at station {threshold.station_id}" if threshold.station_id else ""
        click.echo(f"Threshold{place}: {threshold_text(threshold)}")
    if manifest["training"]:
        parts = ", ".join(f"{count} for {name}" for name, count in sorted(manifest["training"]["parts"].items()))
        click.echo(f"Trained on good parts: {parts}; epochs: {manifest['training']['epochs']}")
    print_metrics(manifest["metrics"])
    print_detectability(manifest.get("detectability"))
    click.echo(f"Bundle: {shown.sha256}")


def print_metrics(metrics: Mapping[str, Any] | None) -> None:
    """Print the detection metrics and the trivial controls."""
    if metrics is None:
        return
    low, high = metrics["auroc_interval"]
    click.echo(
        f"On {metrics['good']} good and {metrics['defective']} defective test images: "
        f"AUROC {metrics['auroc']:.3f} (95% interval {low:.3f} to {high:.3f}), "
        f"{metrics['recall']:.1%} of the defective and {metrics['false_reject_rate']:.1%} of the good images rejected"
    )
    if metrics.get("pixel_auroc") is not None:
        click.echo(
            f"Localisation of the defects: pixel AUROC {metrics['pixel_auroc']:.3f}, AUPRO {metrics['aupro']:.3f}"
        )
    controls = sorted(metrics["controls"].items(), key=lambda item: -item[1])
    click.echo("Trivial controls: " + ", ".join(f"{name} {value:.3f}" for name, value in controls))
    if controls and controls[0][1] >= metrics["auroc"]:
        click.echo(
            f"The control {controls[0][0]} separates the test parts as well as the detector does, "
            "so this test says nothing about the detector."
        )


@models.command("import")
@click.argument("file", metavar="BUNDLE|FILE.pth", type=FOLDER_OR_FILE, help="A bundle, or a plain state dict.")
@recipe_option
@click.option("--threshold", type=float, help="For a state dict: scores at or above it are ng. A bundle has its own.")
@click.option(
    "--input-size",
    type=click.IntRange(min=8),
    default=128,
    help="For a state dict: both sides of its input, in pixels.",
)
@activate_option
@force_option
@system_options
def import_bundle(
    file: Path,
    recipe: str,
    threshold: float | None,
    input_size: int,
    activate: bool,
    force: bool,
    url: str,
    api_key: str | None,
    as_json: bool,
) -> None:
    """Upload a bundle as a new version.

    FILE.pth is a plain state dict of the reference network; pass the threshold that it was used with.
    """
    is_state_dict = file.suffix.lower() in (".pth", ".pt")
    if is_state_dict and threshold is None:
        raise WrongUse("a state dict has no threshold: pass the threshold that it was used with as --threshold")
    if not is_state_dict and threshold is not None:
        raise WrongUse("a bundle has its own threshold: omit --threshold, and use `linewatch calibrate` later")
    if not file.exists():
        raise WrongUse(f"{file} does not exist")
    with client(url, api_key) as system, tempfile.TemporaryDirectory(prefix="linewatch-") as folder:
        system.recipes()  # fail early if the system cannot be reached
        bundle = file
        if threshold is not None:
            bundle = _convert(file, Path(folder, "bundle"), threshold, input_size)
        version = register(system, recipe, bundle, activate=activate, force=force)
    if as_json:
        print_json(version.document)
    else:
        print_outcome(version)
        click.echo(f"Threshold: {threshold_text(version.threshold)}")
    if activate and not force:
        refuse_unfit(version)


def _convert(file: Path, bundle: Path, threshold: float, input_size: int) -> Path:
    import_state_dict = server_part("linewatch.server.state_dicts:import_state_dict", "converting a state dict")
    import_state_dict(file, bundle, threshold=threshold, input_size=input_size)
    return bundle


@models.command()
@recipe_option
@click.option("--version", type=click.IntRange(min=1), required=True, help="The version to activate.")
@force_option
@system_options
def activate(recipe: str, version: int, force: bool, url: str, api_key: str | None, as_json: bool) -> None:
    """Activate a ready version, from the next minibatch on."""
    with client(url, api_key) as system:
        if not force:
            refuse_unfit(system.model_version(recipe, version))
        active = system.activate(recipe, version)
    _print_active(active, as_json)


@models.command()
@recipe_option
@system_options
def rollback(recipe: str, url: str, api_key: str | None, as_json: bool) -> None:
    """Activate the version that was active before."""
    with client(url, api_key) as system:
        active = system.rollback(recipe)
    _print_active(active, as_json)


@models.command()
@recipe_option
@click.option("--version", type=click.IntRange(min=1), required=True, help="The challenger.")
@click.option(
    "--share", type=click.FloatRange(min=0, max=1), default=0.1, help="The share of live images, above 0 and up to 1."
)
@system_options
def challenge(recipe: str, version: int, share: float, url: str, api_key: str | None, as_json: bool) -> None:
    """Let a ready version score a share of live images in the shadow of the active one.

    It changes no result. The report of its run shows what it would have changed.
    """
    if share == 0:
        raise WrongUse("a challenger needs a share above 0: --share 0.1 is a tenth of the images")
    with client(url, api_key) as system:
        run = system.set_challenger(recipe, version, share=share)
    if as_json:
        print_json(run.document)
        return
    remark(f"Version {version} challenges with {share:.3g} of the images from now on, as run {run.id}.")


@models.command()
@recipe_option
@connection_options
def unchallenge(recipe: str, url: str, api_key: str | None) -> None:
    """End the challenger of a recipe. Its run and its results stay."""
    with client(url, api_key) as system:
        run = system.challenger(recipe)
        if run is None:
            raise CommandFailed(f"recipe {recipe!r} has no challenger")
        system.end_challenger(recipe)
    remark(f"Version {run.model.version} is no longer the challenger; its results are run {run.id}.")


def _print_active(version: "ModelVersion", as_json: bool) -> None:
    if as_json:
        print_json(version.document)
        return
    remark(f"Version {version.version} of recipe {version.recipe} is active now.")
