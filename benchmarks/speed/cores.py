"""The cores that this process may use."""

import os
import sys
from typing import Final

CORES: Final = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
