"""The `linewatch` command. Importing it is next to nothing, so that an interrupt finds `run` from the very start."""

import sys
from collections.abc import Sequence


def run(arguments: Sequence[str]) -> int:
    """Run one command: 0 done, 1 the work failed, 2 wrong use, 130 interrupted. A failure is one line on stderr."""
    try:
        from linewatch.cli import program

        return program.run(arguments)
    except KeyboardInterrupt:
        sys.stderr.write("linewatch: interrupted\n")
        return 130


def main() -> None:
    """The entry point."""
    sys.exit(run(sys.argv[1:]))
