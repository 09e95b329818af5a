"""Evaluation: metrics, localisation, heatmaps, diagnosis and the training report."""
