"""Learn from reviewed inspections: gather their images, split them, and compare the new version with past verdicts."""
