"""Errors that several packages of `core.vision` raise."""


class InvalidBundle(ValueError):  # noqa: N818 - describes the fault
    """The bundle is not accepted. The message gives the reason on one line."""
