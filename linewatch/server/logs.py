"""The joined log of many processes: each line with its time and its process."""

import os
import sys
from collections.abc import Callable
from datetime import datetime
from typing import IO, TextIO

_LONGEST_LINE = 8192  # bytes after which a line is cut
_COLOURS = (36, 32, 33, 35, 34, 96, 92, 93, 95, 94)


class Logs:
    """Writes lines with their time and process; in colour on a terminal."""

    def __init__(self, stream: TextIO | None = None, width: int = 12) -> None:
        """Names are padded to `width`; `stream` is standard error where none is given."""
        self._stream = sys.stderr if stream is None else stream
        self._width = width
        self._has_colour = self._stream.isatty() and "NO_COLOR" not in os.environ
        self._colours: dict[str, int] = {}
        self._has_reader = True

    def write(self, name: str, text: str) -> None:
        """One line of `name`."""
        head = f"{datetime.now().astimezone():%Y-%m-%d %H:%M:%S} {name:<{self._width}} |"
        if self._has_colour:
            colour = self._colours.setdefault(name, _COLOURS[len(self._colours) % len(_COLOURS)])
            head = f"\x1b[{colour}m{head}\x1b[0m"
        if not self._has_reader:
            return
        try:
            self._stream.write(f"{head} {text}\n")
            self._stream.flush()
        except OSError:  # the reader of the log has gone; the system continues without it
            self._has_reader = False


class Output:
    """What one process says through a pipe, cut into lines; never waits for it."""

    def __init__(self, pipe: IO[bytes], tell: Callable[[str], None]) -> None:
        """`tell` is called with each line, without its end."""
        os.set_blocking(pipe.fileno(), False)
        self.pipe = pipe
        self._tell = tell
        self._rest = b""

    def read(self) -> bool:
        """Take what is there; `False` once nothing can come any more."""
        while True:
            try:
                chunk = os.read(self.pipe.fileno(), 65536)
            except BlockingIOError:
                return True
            if not chunk:
                return False
            *lines, self._rest = (self._rest + chunk).split(b"\n")
            for line in lines:
                self._say(line)
            if len(self._rest) > _LONGEST_LINE:
                whole = len(self._rest) - len(self._rest) % _LONGEST_LINE
                self._say(self._rest[:whole])
                self._rest = self._rest[whole:]

    def close(self) -> None:
        """Say what was begun and not ended, and close the pipe."""
        if self._rest:
            self._say(self._rest)
        self.pipe.close()

    def _say(self, line: bytes) -> None:
        for begin in range(0, max(len(line), 1), _LONGEST_LINE):
            self._tell(line[begin : begin + _LONGEST_LINE].decode(errors="replace").rstrip("\r"))
