"""Reviewed parts: which images a training learns from, their split, and what the new version would have changed."""
