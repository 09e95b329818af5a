"""The names of what a training writes."""

from typing import Final

BUNDLE: Final = "bundle"
"""The folder of the bundle, in that of the attempt."""
REPORT: Final = "report.html"
"""The report, in the folder of the attempt."""
CHECKPOINTS: Final = "checkpoints"
"""The folder of the checkpoints, in that of the run."""
