"""Compiled networks compute what torch computes, for every backbone, from several threads at once."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor, nn

from core.vision.detectors.autoencoder import Autoencoder, AutoencoderSettings
from core.vision.detectors.backbone import BACKBONES, describe
from core.vision.detectors.backbones.channel_selection import ChannelSelection, draw_selection
from core.vision.detectors.compiled_network import IS_AVAILABLE, CompiledNetwork, NotCompiled

TOLERANCE = 1e-5


def with_random_weights(backbone: str) -> nn.Module:
    torch.manual_seed(0)
    description = describe(backbone)
    network = description.build()
    if description.kept_channels is not None:
        network = ChannelSelection(network, draw_selection(description.channels, description.kept_channels, 0))
    return network.eval().requires_grad_(False)


def assert_same(outputs: list[Tensor], expected: list[Tensor]) -> None:
    assert len(outputs) == len(expected)
    for output, wanted in zip(outputs, expected, strict=True):
        assert output.shape == wanted.shape
        assert float(wanted.abs().max()) > 0
        assert float((output - wanted).abs().max()) <= TOLERANCE * float(wanted.abs().max())


def test_openvino_is_installed_with_the_worker() -> None:
    assert IS_AVAILABLE


@pytest.mark.parametrize("backbone", BACKBONES)
def test_each_backbone_computes_what_torch_computes(backbone: str) -> None:
    network = with_random_weights(backbone)
    side = 4 * describe(backbone).cell_pixels
    images = torch.randn(3, 3, side, side).contiguous(memory_format=torch.channels_last)
    with torch.inference_mode():
        expected = network(images)
    assert_same(CompiledNetwork(network, (3, side, side), cores=2)(images), expected)


def test_calls_from_several_threads_do_not_mix() -> None:
    torch.manual_seed(0)
    network = Autoencoder(AutoencoderSettings(width=32, height=32)).eval()
    compiled = CompiledNetwork(network, (3, 32, 32), cores=2)
    batches = [torch.rand(1 + number % 3, 3, 32, 32) for number in range(40)]
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(compiled, batches))
    with torch.inference_mode():
        for outputs, batch in zip(found, batches, strict=True):
            assert_same(outputs, [network(batch)])


def test_a_network_that_cannot_be_compiled_is_reported() -> None:
    class Impossible(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            eigenvalues: Tensor = torch.linalg.eigvals(images)
            return eigenvalues

    with pytest.raises(NotCompiled):
        CompiledNetwork(Impossible().eval(), (3, 8, 8), cores=1)
