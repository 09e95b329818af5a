"""Access: API keys, their scopes, and the audit log."""
