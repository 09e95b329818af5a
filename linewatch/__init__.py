"""Linewatch: visual inspection for production lines. `from linewatch import Client` talks to a running system."""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from linewatch.client import Client
    from linewatch.errors import BundleRejected, LinewatchError, Refused, TimedOut, Unreachable
    from linewatch.results import Batch, Inspection, ModelVersion, Recipe, Threshold, ThresholdPreview

__all__ = [
    "Batch",
    "BundleRejected",
    "Client",
    "Inspection",
    "LinewatchError",
    "ModelVersion",
    "Recipe",
    "Refused",
    "Threshold",
    "ThresholdPreview",
    "TimedOut",
    "Unreachable",
]

_HOME = {
    "Client": "linewatch.client",
    **dict.fromkeys(("BundleRejected", "LinewatchError", "Refused", "TimedOut", "Unreachable"), "linewatch.errors"),
    **dict.fromkeys(
        ("Batch", "Inspection", "ModelVersion", "Recipe", "Threshold", "ThresholdPreview"), "linewatch.results"
    ),
}


def __getattr__(name: str) -> object:
    """Import what is asked for when it is asked for: the server's processes import this package without httpx."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)
