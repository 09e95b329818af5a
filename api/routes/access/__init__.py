"""Sessions, API keys and the audit log."""
