"""Drift: whether what comes in, and how it is scored, still is what the model version was made for."""
