"""PostgreSQL and Valkey from Python wheels, as child processes that end with the program that started them."""


class UpError(Exception):
    """An expected failure. Its message is one line with the problem and the remedy.

    Attributes:
        exit_code: 1 if the work failed, 2 if the command was used wrongly.
    """

    def __init__(self, message: str, *, exit_code: int = 1) -> None:
        super().__init__(message)
        self.exit_code = exit_code
