"""The detectors: their interface, their registry, one module for each, and what they share."""
