"""File names in `Content-Disposition`, as browsers, curl and .NET write them."""

import base64
import re
from collections.abc import Callable
from urllib.parse import unquote_to_bytes

_CHARSETS = frozenset({"utf-8", "iso-8859-1", "us-ascii"})
_PARAMETER = re.compile(r';\s*([^\s;="]+)\s*=\s*("(?:[^"\\]|\\.)*"|[^\s;"]*)')
_EXTENDED = re.compile(r"([\w-]+)'[\w-]*'(.*)", re.ASCII | re.DOTALL)
_ENCODED_WORD = re.compile(r"=\?([\w-]+)(?:\*[\w-]*)?\?([BbQq])\?([^?]*)\?=", re.ASCII)
_ENCODED_WORDS = re.compile(rf"{_ENCODED_WORD.pattern}(?:\s*{_ENCODED_WORD.pattern})*", re.ASCII)


def decoded_file_name(disposition: str, file_name: str | None) -> str | None:
    """Return the file name of a part of a form.

    `filename*` takes precedence over `filename` (RFC 6266, section 4.3; RFC 8187 for its encoding). It must not be used
    in forms (RFC 7578, section 4.2), but .NET does, and writes encoded words (RFC 2047) into `filename` beside it.

    Args:
        disposition: the header `Content-Disposition` of the part.
        file_name: its parameter `filename`, unquoted; None if it has none.
    """
    if "*" in disposition:
        for name, value in _PARAMETER.findall(disposition):
            if name.lower() == "filename*" and (extended := _decode_extended(value.strip('"'))) is not None:
                return extended
    return file_name if file_name is None else _decode_words(file_name)


def _decode_extended(value: str) -> str | None:
    """Decode an extended value, `UTF-8'en'%c3%a4.png`; None if it is none, or in another character set."""
    parts = _EXTENDED.fullmatch(value)
    return None if parts is None else _decode(parts[1], lambda: unquote_to_bytes(parts[2]))


def _decode_words(text: str) -> str:
    """Decode a text of encoded words only, `=?utf-8?B?w6QucG5n?=`; anything else is left as it is."""
    if not text.startswith("=?") or _ENCODED_WORDS.fullmatch(text) is None:
        return text
    words = [_decode_word(*word) for word in _ENCODED_WORD.findall(text)]
    return text if None in words else "".join(word for word in words if word is not None)


def _decode_word(charset: str, encoding: str, content: str) -> str | None:
    if encoding in "Bb":
        return _decode(charset, lambda: base64.b64decode(content, validate=True))
    quoted = content.replace("_", " ").replace("=", "%")
    return None if "%" in content else _decode(charset, lambda: unquote_to_bytes(quoted))


def _decode(charset: str, content: Callable[[], bytes]) -> str | None:
    """Decode bytes; None if they are not in this character set, or it is not one that clients must know."""
    if charset.lower() not in _CHARSETS:
        return None
    try:
        return content().decode(charset)
    except ValueError:
        return None
