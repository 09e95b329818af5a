"""The `linewatch` command. It imports almost nothing, so that `run` handles an interrupt from the start."""

import sys
from collections.abc import Sequence


def run(arguments: Sequence[str]) -> int:
    """Run one command. A failure prints one line to standard error.

    Returns:
        The exit code: 0 for success, 1 if the work failed, 2 for wrong use, 130 if it was interrupted.
    """
    try:
        from linewatch.cli import program

        return program.run(arguments)
    except KeyboardInterrupt:
        sys.stderr.write("linewatch: interrupted\n")
        return 130


def main() -> None:
    """The entry point."""
    sys.exit(run(sys.argv[1:]))
