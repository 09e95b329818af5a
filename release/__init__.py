"""`make release VERSION=0.2.0`: version, changelog, commit, tag, wheels and images of a release."""


class ReleaseError(Exception):
    """The release is refused, or a step of it failed. The message is one line that says what to do."""
