"""The benchmark of a GPU, run on the cores of this machine."""

from pathlib import Path

import pytest
import torch
from torch import nn

from benchmarks import gpu
from core.vision.bundle.folder import read_folder
from core.vision.bundle.loading import load_detector
from core.vision.detectors.device import Device
from tests.fixtures.part_images import encoded, part, write_bundle


def test_bytes_moved_are_the_inputs_outputs_and_weights_of_the_layers() -> None:
    network = nn.Sequential(nn.Linear(4, 3, bias=False), nn.ReLU())
    moved = gpu.bytes_moved(lambda: network(torch.zeros(2, 4)))
    assert moved == 4 * (2 * 4 + 4 * 3 + 2 * 3) + 4 * (2 * 3 + 2 * 3)


def test_each_stage_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "MINIBATCHES", (1, 2))
    monkeypatch.setattr(gpu, "SECONDS", 0.0)
    monkeypatch.setattr(gpu, "_COPIED_BYTES", 2**16)
    detector = load_detector(read_folder(write_bundle(tmp_path / "bundle")), device="cpu", max_pixels=10**6)
    jpegs = [encoded(part(seed), "JPEG") for seed in range(2)]
    device = Device("cpu")
    forward = list(gpu.forward_lines(detector, device, [detector.prepare(jpeg) for jpeg in jpegs]))
    assert forward[0].startswith("memory: ")
    assert forward[1] == "torch.float32: scores change by up to 0.0e+00, relative"
    assert [line.partition(":")[0].strip() for line in forward[2:4]] == ["minibatch   1", "minibatch   2"]
    assert len(forward) == 1 + 3 * (1 + 2)
    [decoding] = gpu.decoding_lines(detector, device, jpegs)
    assert decoding.startswith("decoding and resizing on ")
