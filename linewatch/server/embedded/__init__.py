"""PostgreSQL and Valkey from Python wheels, as child processes that cannot outlive the program that started them."""


class UpError(Exception):
    """A failure that was foreseen; its message is the one line that a person needs, with what to do about it.

    Attributes:
        exit_code: 1 where the work failed, 2 where the command was used wrongly.
    """

    def __init__(self, message: str, *, exit_code: int = 1) -> None:
        super().__init__(message)
        self.exit_code = exit_code
