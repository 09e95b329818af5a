"""DINOv2's small vision transformer (Oquab et al., "DINOv2", TMLR 2024), trained without labels on 142 million images.

Dosovitskiy et al., "An Image is Worth 16x16 Words" (ICLR 2021), with layer scale. The names of the weights are those
that the authors publish; timm publishes the same weights under the same names.
"""

from collections.abc import Mapping
from typing import Final

import torch
from torch import Tensor, nn

from core.vision.detectors.backbones.description import BackboneDescription
from core.vision.detectors.backbones.weights import DownloadedWeights

_WIDTH: Final = 384
_HEADS: Final = 6
_BLOCKS: Final = 12
_PATCH: Final = 14
_TRAINED_SIDE: Final = 37
"""Patches along a side of the images of 518 × 518 pixels that the position embedding was trained for."""
_POSITION_OFFSET: Final = 0.1
"""Added to the number of patches when the position embedding is scaled, as the authors do."""
_OUTPUT_BLOCKS: Final = (3, 6, 9)
"""Blocks spread over the middle eight of twelve, which Guo et al., "Dinomaly" (CVPR 2025), use. Not tuned here."""


class _Attention(nn.Module):
    """Self-attention of several heads."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(_WIDTH, 3 * _WIDTH)
        self.proj = nn.Linear(_WIDTH, _WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        heads = self.qkv(x).unflatten(2, (3, _HEADS, _WIDTH // _HEADS)).permute(2, 0, 3, 1, 4)
        mixed = nn.functional.scaled_dot_product_attention(*heads.unbind(0))
        projected: Tensor = self.proj(mixed.transpose(1, 2).flatten(2))
        return projected


class _Perceptron(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc1 = nn.Linear(_WIDTH, 4 * _WIDTH)
        self.fc2 = nn.Linear(4 * _WIDTH, _WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.fc2(nn.functional.gelu(self.fc1(x)))
        return y


class _Scale(nn.Module):
    """Layer scale (Touvron et al., "CaiT", ICCV 2021)."""

    def __init__(self) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(_WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gamma


class _Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(_WIDTH, eps=1e-6)
        self.attn = _Attention()
        self.ls1 = _Scale()
        self.norm2 = nn.LayerNorm(_WIDTH, eps=1e-6)
        self.mlp = _Perceptron()
        self.ls2 = _Scale()

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.ls1(self.attn(self.norm1(x)))
        y: Tensor = x + self.ls2(self.mlp(self.norm2(x)))
        return y


class _Patches(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, _WIDTH, _PATCH, _PATCH)

    def forward(self, x: Tensor) -> Tensor:
        patches: Tensor = self.proj(x)
        return patches


class VisionTransformer(nn.Module):
    """ViT-S/14 up to its tenth block; returns the normalised tokens of blocks 4, 7 and 10, with 384 channels each."""

    def __init__(self) -> None:
        super().__init__()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, _WIDTH))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + _TRAINED_SIDE**2, _WIDTH))
        self.patch_embed = _Patches()
        self.blocks = nn.ModuleList(_Block() for _ in range(max(_OUTPUT_BLOCKS) + 1))
        self.norm = nn.LayerNorm(_WIDTH, eps=1e-6)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Map (N, 3, height, width), of mean 0 and standard deviation about 1, to layers with cells of 14 pixels."""
        patches = self.patch_embed(x)
        rows, columns = (int(side) for side in patches.shape[2:])  # fixed when the network is compiled
        class_token = (self.cls_token + self.pos_embed[:, :1]).expand(len(x), -1, -1)
        tokens = (patches + self._position(rows, columns)).flatten(2).transpose(1, 2)
        tokens = torch.cat([class_token, tokens], dim=1)
        layers = []
        for number, block in enumerate(self.blocks):
            tokens = block(tokens)
            if number in _OUTPUT_BLOCKS:
                layers.append(self.norm(tokens)[:, 1:].transpose(1, 2).reshape(len(x), _WIDTH, rows, columns))
        return layers

    def _position(self, rows: int, columns: int) -> Tensor:
        """Scale the position embedding to a grid: (1, channels, rows, columns)."""
        trained = self.pos_embed[:, 1:].transpose(1, 2).reshape(1, _WIDTH, _TRAINED_SIDE, _TRAINED_SIDE)
        if (rows, columns) == (_TRAINED_SIDE, _TRAINED_SIDE):
            return trained
        scale = ((rows + _POSITION_OFFSET) / _TRAINED_SIDE, (columns + _POSITION_OFFSET) / _TRAINED_SIDE)
        return nn.functional.interpolate(trained, scale_factor=scale, mode="bicubic")


def _from_published(published: Mapping[str, Tensor]) -> VisionTransformer:
    """Build the network from published weights.

    Raises:
        KeyError: a weight is missing, or there is one of another network, for example of one with registers.
        RuntimeError: a weight has another shape.
    """
    with torch.device("meta"):
        network = VisionTransformer()
    used = network.state_dict().keys()
    unused = ("mask_token", *(f"blocks.{number}." for number in range(len(network.blocks), _BLOCKS)))
    if unknown := [name for name in published if name not in used and not name.startswith(unused)]:
        raise KeyError(unknown[0])
    network.load_state_dict({name: published[name].to(torch.float32).contiguous() for name in used}, assign=True)
    return network


DESCRIPTIONS: Final = {
    "dinov2_vits14": BackboneDescription(
        channels=(_WIDTH,) * len(_OUTPUT_BLOCKS),
        build=VisionTransformer,
        from_published=_from_published,
        weights=DownloadedWeights(
            source="facebookresearch/dinov2",
            url="https://dl.fbaipublicfiles.com/dinov2/dinov2_vits14/dinov2_vits14_pretrain.pth",
            sha256="b938bf1bc15cd2ec0feacfe3a1bb553fe8ea9ca46a7e1d8d00217f29aef60cd9",
            licence="Apache-2.0",
        ),
        cell_pixels=_PATCH,
        kept_channels=96,
    )
}
