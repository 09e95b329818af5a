"""Metrics of the GPU that this process computes on. Other processes may use it, too."""

import logging
from collections.abc import Callable, Iterator

import torch
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

log = logging.getLogger(__name__)


class GpuUse(Collector):
    """Reads the memory and the use of the GPU at each scrape. Register it only in a process that computes on a GPU."""

    def describe(self) -> Iterator[Metric]:
        yield _used_bytes()
        yield _size_bytes()
        yield _busy_ratio()

    def collect(self) -> Iterator[Metric]:
        try:
            free, size = torch.cuda.mem_get_info()
        except RuntimeError as error:  # the GPU is gone, or an earlier call on it failed: the worker ends for that
            log.warning("the memory of the GPU cannot be read: %s", error)
            return
        yield from (_used_bytes(size - free), _size_bytes(size))
        busy = _busy_percent(torch.cuda.utilization)
        if busy is not None:
            yield _busy_ratio(busy / 100)


def _busy_percent(read: Callable[[], int]) -> int | None:
    try:
        return read()
    except Exception as error:  # noqa: BLE001 - the driver's library has many errors; a slice of a GPU has no figure
        log.debug("the use of the GPU cannot be read: %s", error)
        return None


def _used_bytes(value: float | None = None) -> Metric:
    return GaugeMetricFamily("linewatch_gpu_memory_used_bytes", "Memory of the GPU in use, by any process.", value)


def _size_bytes(value: float | None = None) -> Metric:
    return GaugeMetricFamily("linewatch_gpu_memory_size_bytes", "Memory of the GPU.", value)


def _busy_ratio(value: float | None = None) -> Metric:
    documentation = "Share of the last moments in which the GPU computed anything, for any process."
    return GaugeMetricFamily("linewatch_gpu_busy_ratio", documentation, value)
