"""The records of a detector in a manifest: its architecture and its backbone."""

from typing import Annotated, Final

from pydantic import Field

from core.vision.manifest_part import ManifestPart

WEIGHTS: Final = "weights.safetensors"

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Architecture(ManifestPart):
    """The name of a detector and the settings that its network is built from."""

    name: Annotated[str, Field(min_length=1, max_length=100)]
    settings: dict[str, bool | int | float | str]


class BackboneRecord(ManifestPart):
    """The origin and licence of the pretrained network in a bundle.

    Attributes:
        name: of the network.
        source: the package or file that the weights come from.
        licence: of the weights.
        sha256: of the published file.
    """

    name: Annotated[str, Field(min_length=1, max_length=100)]
    source: Annotated[str, Field(min_length=1, max_length=300)]
    licence: Annotated[str, Field(min_length=1, max_length=300)]
    sha256: Sha256
