"""The rate limit of failed sign-ins."""

import logging

from api.access.rate_limits import RateLimits
from core.errors import Code, Refused

log = logging.getLogger(__name__)

FAILURES_PER_MINUTE = 10
"""The limit for each address. API keys cannot be guessed; it keeps scripts from filling the log and the database."""


class SignInLimit:
    """Limits the failed sign-ins from each address, in this api process. Use it in the event loop only."""

    def __init__(self) -> None:
        self._rates = RateLimits()

    def begin(self, address: str) -> None:
        """Count a sign-in as failed until it succeeds.

        Raises:
            Refused: RATE_LIMITED after too many failures.
        """
        seconds = self._rates.take(address, FAILURES_PER_MINUTE)
        if seconds:
            log.warning("refused a sign-in from %s: too many have failed", address)
            raise Refused(
                Code.RATE_LIMITED, "Too many sign-ins from your address have failed. Retry later.", retry_after=seconds
            )

    def succeeded(self, address: str) -> None:
        """Do not count the sign-in that has just succeeded."""
        self._rates.give_back(address)
