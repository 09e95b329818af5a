"""Connections to PostgreSQL. Their transactions are bounded in time; those of workers end before their leases do."""

from sqlalchemy import Engine, create_engine
from sqlalchemy.engine import make_url
from sqlalchemy.exc import InterfaceError, InternalError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.pool import NullPool

from core.settings import Settings

# The ways of saying that the database cannot be used now: away, recovering, too slow, read-only, no connection free.
UNUSABLE = (OperationalError, InterfaceError, InternalError, PoolTimeoutError)

UNIT_SECONDS = 30.0
"""The longest time for a unit of work that holds no lease. Timeouts are shares of it, or of the lease."""
TRANSACTION_SHARE = 0.7
STATEMENT_SHARE = 0.5
LOCK_SHARE = 0.3


def _options(unit_seconds: float) -> str:
    unit_ms = unit_seconds * 1000
    timeouts = {
        "transaction_timeout": unit_ms * TRANSACTION_SHARE,
        "statement_timeout": unit_ms * STATEMENT_SHARE,
        "idle_in_transaction_session_timeout": unit_ms * STATEMENT_SHARE,
        "lock_timeout": unit_ms * LOCK_SHARE,
    }
    return " ".join(f"-c {name}={value:.0f}ms" for name, value in timeouts.items()) + " -c timezone=UTC"


def create_pool(settings: Settings, *, size: int, name: str, unit_seconds: float = UNIT_SECONDS) -> Engine:
    """An engine with at most `size` connections; `name` is what pg_stat_activity shows.

    Workers pass their lease as `unit_seconds`, so that a transaction ends before its claims are given to another.

    A connection that broke while idle is replaced on checkout, so a restarted database costs no request.
    """
    return create_engine(
        make_url(settings.database_url.get_secret_value()),
        pool_size=size,
        max_overflow=0,
        pool_timeout=unit_seconds * STATEMENT_SHARE,
        pool_pre_ping=True,
        hide_parameters=True,  # secrets and what others wrote are among them, and errors go to the log
        connect_args={
            "options": _options(unit_seconds),
            "application_name": f"linewatch {name}",
            "connect_timeout": 5,
            "keepalives_idle": 30,
        },
    )


def create_unbounded(settings: Settings, *, name: str) -> Engine:
    """An engine without statement timeouts, for migrations, which bound themselves."""
    return create_engine(
        make_url(settings.database_url.get_secret_value()),
        poolclass=NullPool,
        connect_args={"application_name": f"linewatch {name}", "connect_timeout": 5},
    )
