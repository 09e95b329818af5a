"""The tables of access: API keys, sessions of browsers, and the audit log."""

from sqlalchemy import ARRAY, BigInteger, Column, ForeignKey, Index, Integer, LargeBinary, Table, Text
from sqlalchemy.dialects.postgresql import JSONB

from core.tables import NOW, Timestamp, id_column, metadata

api_keys = Table(
    "api_keys",
    metadata,
    id_column(),
    Column("name", Text, nullable=False),
    Column("prefix", Text, nullable=False, unique=True),
    Column("secret_sha256", LargeBinary, nullable=False),
    Column("scopes", ARRAY(Text), nullable=False),
    Column("created_at", Timestamp, nullable=False, server_default=NOW),
    Column("expires_at", Timestamp),
    Column("last_used_at", Timestamp),
    Column("revoked_at", Timestamp),
    Column("requests_per_minute", Integer),
)

# Sign-ins of browsers with an API key. `expires_at` moves on while a session is used.
sessions = Table(
    "sessions",
    metadata,
    id_column(),
    Column("token_sha256", LargeBinary, nullable=False, unique=True),
    Column("key_id", BigInteger, ForeignKey("api_keys.id"), nullable=False),
    Column("created_at", Timestamp, nullable=False, server_default=NOW),
    Column("last_used_at", Timestamp, nullable=False, server_default=NOW),
    Column("expires_at", Timestamp, nullable=False),
    Index(None, "key_id"),
    Index(None, "expires_at"),
)

audit_events = Table(
    "audit_events",
    metadata,
    id_column(),
    Column("at", Timestamp, nullable=False, server_default=NOW),
    Column("actor", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("detail", JSONB, nullable=False),
    Index(None, "subject", "id"),
    Index(None, "at", "id"),
    Index(None, "actor", "at", "id"),
    Index(None, "action", "at", "id"),
    Index(None, "actor", "action", "at", "id"),
    Index(None, "subject", "at", "id"),
)
