"""Figures about many inspections: counts, rates and times to verdict."""
