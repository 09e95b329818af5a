"""Access to the parts of the server's distribution, if it is installed.

`linewatch-client` contains the client and its commands. Commands that compute or manage the servers are in the
distribution `linewatch`.
"""

import importlib
from importlib.util import find_spec
from typing import Any

from linewatch.cli.failures import WrongUse


def server_is_installed() -> bool:
    """Return whether the server's distribution is installed."""
    return find_spec("linewatch.server") is not None


def server_part(name: str, purpose: str) -> Any:
    """Import an attribute of the server's distribution.

    Args:
        name: such as `linewatch.server.commands.train:train`.
        purpose: what needs it, for the error message.

    Raises:
        WrongUse: only the client is installed.
    """
    if not server_is_installed():
        raise WrongUse(f"{purpose} needs the server, and only the client is installed here: pip install linewatch")
    module, _, attribute = name.partition(":")
    return getattr(importlib.import_module(module), attribute)
