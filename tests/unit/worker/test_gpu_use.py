"""The memory and the use of a GPU, with a stand-in for the driver: what it cannot tell is left out."""

import pytest
import torch
from prometheus_client import CollectorRegistry

from worker.pipeline.gpu_use import GpuUse


@pytest.fixture
def registry() -> CollectorRegistry:
    registry = CollectorRegistry()
    registry.register(GpuUse())
    return registry


def names(registry: CollectorRegistry) -> set[str]:
    return {family.name for family in registry.collect()}


def test_memory_and_use_are_read(registry: CollectorRegistry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (30, 100))
    monkeypatch.setattr(torch.cuda, "utilization", lambda: 85)
    assert registry.get_sample_value("linewatch_gpu_memory_used_bytes") == 70
    assert registry.get_sample_value("linewatch_gpu_memory_size_bytes") == 100
    assert registry.get_sample_value("linewatch_gpu_busy_ratio") == 0.85


def test_a_gpu_without_a_figure_for_its_use(registry: CollectorRegistry, monkeypatch: pytest.MonkeyPatch) -> None:
    def unsupported() -> int:
        raise ValueError("not supported for a slice of a GPU")

    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (30, 100))
    monkeypatch.setattr(torch.cuda, "utilization", unsupported)
    assert names(registry) == {"linewatch_gpu_memory_used_bytes", "linewatch_gpu_memory_size_bytes"}


def test_a_lost_gpu_does_not_end_the_scrape(registry: CollectorRegistry, monkeypatch: pytest.MonkeyPatch) -> None:
    def lost() -> tuple[int, int]:
        raise RuntimeError("CUDA error")

    monkeypatch.setattr(torch.cuda, "mem_get_info", lost)
    assert names(registry) == set()
