"""Connections to PostgreSQL with time limits. The transactions of workers time out before their leases expire."""

from sqlalchemy import Engine, create_engine
from sqlalchemy.engine import make_url
from sqlalchemy.exc import InterfaceError, InternalError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.pool import NullPool

from core.settings import Settings

# Raised while the database is unreachable, recovering, too slow or read-only, or while the pool has no free connection.
UNUSABLE = (OperationalError, InterfaceError, InternalError, PoolTimeoutError)

UNIT_SECONDS = 30.0
"""The time limit of a unit of work without a lease. The timeouts are shares of it, or of the lease."""
TRANSACTION_SHARE = 0.7
STATEMENT_SHARE = 0.5
LOCK_SHARE = 0.3

# A database host that vanishes is noticed within 15 s to 25 s. Without these limits of TCP it takes many minutes.
_DEAD_PEER = {"keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 3, "tcp_user_timeout": 15_000}


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
    """Return an engine with at most `size` connections. `name` appears in `pg_stat_activity`.

    Workers pass the length of their leases as `unit_seconds`, so that a transaction ends before another worker can get
    its claims. A connection that broke while idle is replaced on checkout, so no request fails because the database
    was restarted.
    """
    return create_engine(
        make_url(settings.database_url.get_secret_value()),
        pool_size=size,
        max_overflow=0,
        pool_timeout=unit_seconds * STATEMENT_SHARE,
        pool_pre_ping=True,
        hide_parameters=True,  # they contain secrets and data of clients, and errors are logged
        connect_args={
            "options": _options(unit_seconds),
            "application_name": f"linewatch {name}",
            "connect_timeout": 5,
            **_DEAD_PEER,
        },
    )


def create_unbounded(settings: Settings, *, name: str) -> Engine:
    """Return an engine without a pool and without timeouts, for migrations, which set their own."""
    return create_engine(
        make_url(settings.database_url.get_secret_value()),
        poolclass=NullPool,
        connect_args={"application_name": f"linewatch {name}", "connect_timeout": 5, **_DEAD_PEER},
    )
