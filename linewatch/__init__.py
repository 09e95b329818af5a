"""Linewatch: visual inspection for production lines. `from linewatch import Client` talks to a running system."""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from linewatch.client import AsyncClient, Client, NotSubmitted, Submitted
    from linewatch.errors import (
        BundleRejected,
        CursorLost,
        GateNotMet,
        LinewatchError,
        Refused,
        TimedOut,
        Unreachable,
        WebhookInvalid,
    )
    from linewatch.types.drift import Drift, DriftEpisode
    from linewatch.types.holds import LegalHold
    from linewatch.types.related import InspectionRescore, Neighbours, SimilarInspection, SimilarInspections
    from linewatch.types.rescoring import RescoreResult, RescoreRun, RunActivation
    from linewatch.types.results import (
        Batch,
        Consumer,
        Delivery,
        Endpoint,
        FeedItem,
        Inspection,
        ModelVersion,
        Part,
        Recipe,
        Review,
        Threshold,
        ThresholdPreview,
    )
    from linewatch.types.system import System
    from linewatch.types.training import AddedTrainingImages, TrainingRun
    from linewatch.webhooks import WebhookEvent, WebhookGroup, verify_webhook

_NAMES = {
    "linewatch.client": "AsyncClient Client NotSubmitted Submitted",
    "linewatch.errors": """
        BundleRejected CursorLost GateNotMet LinewatchError Refused TimedOut Unreachable WebhookInvalid
    """,
    "linewatch.types.drift": "Drift DriftEpisode",
    "linewatch.types.holds": "LegalHold",
    "linewatch.types.related": "InspectionRescore Neighbours SimilarInspection SimilarInspections",
    "linewatch.types.rescoring": "RescoreResult RescoreRun RunActivation",
    "linewatch.types.results": """
        Batch Consumer Delivery Endpoint FeedItem Inspection ModelVersion Part Recipe Review Threshold
        ThresholdPreview
    """,
    "linewatch.types.system": "System",
    "linewatch.types.training": "AddedTrainingImages TrainingRun",
    "linewatch.webhooks": "WebhookEvent WebhookGroup verify_webhook",
}

__all__ = [
    "AddedTrainingImages",
    "AsyncClient",
    "Batch",
    "BundleRejected",
    "Client",
    "Consumer",
    "CursorLost",
    "Delivery",
    "Drift",
    "DriftEpisode",
    "Endpoint",
    "FeedItem",
    "GateNotMet",
    "Inspection",
    "InspectionRescore",
    "LegalHold",
    "LinewatchError",
    "ModelVersion",
    "Neighbours",
    "NotSubmitted",
    "Part",
    "Recipe",
    "Refused",
    "RescoreResult",
    "RescoreRun",
    "Review",
    "RunActivation",
    "SimilarInspection",
    "SimilarInspections",
    "Submitted",
    "System",
    "Threshold",
    "ThresholdPreview",
    "TimedOut",
    "TrainingRun",
    "Unreachable",
    "WebhookEvent",
    "WebhookGroup",
    "WebhookInvalid",
    "verify_webhook",
]

_HOME = {name: module for module, names in _NAMES.items() for name in names.split()}


def __getattr__(name: str) -> object:
    """Import what is asked for when it is asked for: the server's processes import this package without httpx."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)
