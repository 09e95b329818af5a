"""The settings of LitServe that decide its speed."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Tuning:
    """See LitServe's documentation.

    Attributes:
        batch_timeout: seconds.
    """

    batch_size: int = 8
    batch_timeout: float = 0.01
    fast_queue: bool = True
    api_servers: int = 1

    def __str__(self) -> str:
        queue = "fast queue" if self.fast_queue else "default queue"
        return f"batches of {self.batch_size}, {queue}, API servers: {self.api_servers}"
