"""The networks that `core.vision.detectors.backbone` offers, one file a family, and their published weights."""
