"""Inspections: results, parts, reviews, and previews of a threshold."""
