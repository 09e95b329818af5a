"""The refusals for failed writes to the image store."""

import errno
import logging

from core.errors import Code, Refused

log = logging.getLogger(__name__)


def store_refusal(error: OSError) -> Refused:
    """The error for a failed write to the image store."""
    log.error("could not write to the image store: %s", error)
    if isinstance(error, FileNotFoundError):
        return Refused(Code.STORE_UNAVAILABLE, "The received image was lost before it was stored. Send it again.")
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return Refused(Code.STORE_FULL, "The image store is full. Nothing was accepted.")
    return Refused(Code.STORE_UNAVAILABLE, "The image store cannot be written. Nothing was accepted. Retry later.")
