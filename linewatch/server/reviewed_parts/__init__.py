"""Learn from reviewed inspections of a running system: find and download their images, and compare a new version."""
