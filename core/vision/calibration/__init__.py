"""Calibration: from the scores of good parts to a threshold, with its interval."""
