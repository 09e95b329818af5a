"""What a bundle records about a detector: its architecture, and the backbone that it is built on."""

from typing import Annotated, Final

from pydantic import Field

from core.vision.calibration.record import ManifestPart

WEIGHTS: Final = "weights.safetensors"

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Architecture(ManifestPart):
    """Which detector, and the settings that its network is built from."""

    name: Annotated[str, Field(min_length=1, max_length=100)]
    settings: dict[str, bool | int | float | str]


class BackboneRecord(ManifestPart):
    """A pretrained network that the bundle carries: where its weights come from, and under which licence.

    Attributes:
        name: of the network.
        source: the package or the file that brought the weights.
        licence: of the weights.
        sha256: of the file as published.
    """

    name: Annotated[str, Field(min_length=1, max_length=100)]
    source: Annotated[str, Field(min_length=1, max_length=300)]
    licence: Annotated[str, Field(min_length=1, max_length=300)]
    sha256: Sha256
