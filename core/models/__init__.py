"""Recipes and their model versions, thresholds and verdicts."""
