"""The options of `linewatch train` that describe the training itself."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from linewatch.cli.durations import Duration
from linewatch.cli.failures import WrongUse
from linewatch.cli.options import (
    FOLDER_OR_FILE,
    bit_depth_option,
    false_reject_rate_option,
    group_by_option,
    review_rate_option,
    together,
)

if TYPE_CHECKING:
    from core.vision.training_options import TrainingOptions

training_options = together(
    [
        click.option(
            "--architecture",
            help="The detector: auto, feature-gaussian, memory-bank, combined-maximum, combined-mean, "
            "feature-autoencoder or conv-autoencoder. [auto, if backbone weights are installed]",
        ),
        click.option(
            "--budget",
            "budget_seconds",
            type=Duration(),
            help="auto: how long the whole training may take on images like these. [10m]",
        ),
        click.option(
            "--max-ms",
            type=click.FloatRange(min=0, min_open=True),
            help="auto: the longest time to decode and score an image on one core, in milliseconds. [40]",
        ),
        click.option(
            "--choose-by",
            type=click.Choice(["synthetic", "test"]),
            help="What chooses: synthetic defects on good parts, or test/, for the threshold as well. [synthetic]",
        ),
        click.option(
            "--pose",
            type=click.Choice(["auto", "upright", "as-is"]),
            help="Whether each part is found and turned upright first, for parts that lie in any pose. [auto]",
        ),
        click.option(
            "--alignment",
            type=click.Choice(["auto", "off"]),
            help="Whether each image is aligned to the others, against small shifts and turns. [auto: if it works]",
        ),
        click.option(
            "--pooling",
            type=click.FloatRange(min=0, max=1),
            help="The score is the mean of this share of the highest cells; 0 for the highest cell. [chosen]",
        ),
        click.option(
            "--backbone",
            help="The pretrained network of a feature detector, such as efficientnet-lite2. [efficientnet-lite0]",
        ),
        click.option(
            "--backbone-weights",
            type=FOLDER_OR_FILE,
            help="A file with the backbone's weights, a plain state dict. [installed or downloaded]",
        ),
        click.option("--score-method", help="How a conv-autoencoder scores: mse or z-map. [z-map]"),
        click.option(
            "--epochs",
            type=click.IntRange(min=1),
            help="The number of passes over the images, for detectors that train a network.",
        ),
        click.option(
            "--input-size",
            type=click.IntRange(min=8, max=4096),
            help="The side of the network's input, in pixels. [chosen for the images]",
        ),
        bit_depth_option,
        false_reject_rate_option,
        review_rate_option,
        group_by_option,
        click.option("--seed", type=click.IntRange(min=0, max=2**32 - 1), help="The seed of all random numbers. [0]"),
    ]
)
"""The fields of `TrainingOptions` except the device. None means the default."""


def options(device: str, chosen: Mapping[str, Any]) -> "TrainingOptions":
    """Return the options of a training. None means the default.

    Raises:
        WrongUse: options contradict each other, or the device does not exist.
    """
    from core.vision.detectors.device import resolve_device
    from core.vision.detectors.registry import default_architecture
    from core.vision.training_options import TrainingOptions

    fields = {name: value for name, value in chosen.items() if value is not None}
    fields.setdefault("architecture", default_architecture(chosen.get("backbone"), chosen.get("backbone_weights")))
    try:
        return TrainingOptions(device=resolve_device(device), **fields)
    except ValueError as error:
        raise WrongUse(str(error)) from error
