"""What several rooms of the vision part raise."""


class InvalidBundle(ValueError):  # noqa: N818 - it reads as what it is
    """A bundle that is not accepted; the message is one line that says why."""
