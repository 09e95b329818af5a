"""The server's distribution, `linewatch`: commands that compute or manage the servers, and the servers' code.

A wheel installs the packages `api`, `core`, `migrations` and `worker` in the folder `lib` next to this file, because
other distributions in your environment may use the same names. Only the server's processes import from there.
"""

import os
import sys
from pathlib import Path

_LIB = Path(__file__).with_name("lib")
LIBRARY = _LIB if _LIB.is_dir() else Path(__file__).parents[2]
"""The folder with the server's top-level packages: `lib` in a wheel, the root of the repository in a checkout."""


def _add_to_path() -> None:
    """Make the server's packages importable in this process and its children."""
    if str(LIBRARY) not in sys.path:
        sys.path.insert(0, str(LIBRARY))
    inherited = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    if str(LIBRARY) not in inherited:
        os.environ["PYTHONPATH"] = os.pathsep.join([str(LIBRARY), *filter(None, inherited)])


if _LIB.is_dir():
    _add_to_path()
