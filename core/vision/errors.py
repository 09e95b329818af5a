"""Errors that several packages of `core.vision` raise."""


class InvalidBundle(ValueError):  # noqa: N818 - it reads as what it is
    """The bundle is not accepted. The message gives the reason on one line."""
