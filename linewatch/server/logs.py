"""The merged log of several processes."""

import json
import os
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from typing import IO, TextIO

_LONGEST_LINE = 8192  # bytes; longer lines are split
_COLOURS = (36, 32, 33, 35, 34, 96, 92, 93, 95, 94)


class Logs:
    """Write lines with their time and process, in colour on a terminal.

    Attributes:
        is_json: whether each line is an object, with the process and what the process itself logged as an object.
    """

    is_json = False

    def __init__(self, stream: TextIO | None = None, width: int = 12) -> None:
        """Write to `stream`, by default standard error, and pad names to `width` characters."""
        self._stream = sys.stderr if stream is None else stream
        self._width = width
        self._has_colour = self._stream.isatty() and "NO_COLOR" not in os.environ
        self._colours: dict[str, int] = {}
        self._has_reader = True

    def write(self, name: str, text: str) -> None:
        """Write a line of the process `name`."""
        if self._has_reader:
            self._write(_json_line(name, text) if self.is_json else f"{self._head(name)} {text}")

    def _head(self, name: str) -> str:
        head = f"{datetime.now().astimezone():%Y-%m-%d %H:%M:%S} {name:<{self._width}} |"
        if self._has_colour:
            colour = self._colours.setdefault(name, _COLOURS[len(self._colours) % len(_COLOURS)])
            return f"\x1b[{colour}m{head}\x1b[0m"
        return head

    def _write(self, line: str) -> None:
        try:
            self._stream.write(f"{line}\n")
            self._stream.flush()
        except OSError:  # nothing reads the log any more; the system keeps running without it
            self._has_reader = False


def _json_line(name: str, text: str) -> str:
    try:
        fields = json.loads(text)
    except ValueError:
        fields = None
    if not isinstance(fields, dict):  # PostgreSQL and Valkey log text
        fields = {"time": datetime.now(UTC).isoformat(timespec="milliseconds"), "message": text}
    return json.dumps({"process": name, **fields}, ensure_ascii=False)


class Output:
    """The output of a process, read from a pipe without blocking and split into lines."""

    def __init__(self, pipe: IO[bytes], on_line: Callable[[str], None]) -> None:
        """Call `on_line` with each line, without its line break."""
        os.set_blocking(pipe.fileno(), False)
        self.pipe = pipe
        self._on_line = on_line
        self._rest = b""

    def read(self) -> bool:
        """Read all available output. Return `False` at the end of the output."""
        while True:
            try:
                chunk = os.read(self.pipe.fileno(), 65536)
            except BlockingIOError:
                return True
            if not chunk:
                return False
            *lines, self._rest = (self._rest + chunk).split(b"\n")
            for line in lines:
                self._emit(line)
            if len(self._rest) > _LONGEST_LINE:
                size = len(self._rest) - len(self._rest) % _LONGEST_LINE
                self._emit(self._rest[:size])
                self._rest = self._rest[size:]

    def close(self) -> None:
        """Emit an unfinished last line, and close the pipe."""
        if self._rest:
            self._emit(self._rest)
        self.pipe.close()

    def _emit(self, line: bytes) -> None:
        for start in range(0, max(len(line), 1), _LONGEST_LINE):
            self._on_line(line[start : start + _LONGEST_LINE].decode(errors="replace").rstrip("\r"))
