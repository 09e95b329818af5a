"""Folders for the data of contenders, all of which are deleted at the end of the program.

ext4 without a journal slows the creation of files for minutes after others were deleted, which would count against the
contender that runs then.
"""

import tempfile
from functools import cache
from pathlib import Path


def new_folder() -> Path:
    """Return a new folder that the accounts of servers can reach."""
    folder = Path(tempfile.mkdtemp(dir=_root().name))
    folder.chmod(0o755)
    return folder


@cache
def _root() -> "tempfile.TemporaryDirectory[str]":
    root = tempfile.TemporaryDirectory(prefix="lw-bench-", ignore_cleanup_errors=True)
    Path(root.name).chmod(0o755)
    return root
