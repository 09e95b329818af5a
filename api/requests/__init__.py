"""Requests: parameters, uploads, idempotency keys, queue limits and group commit."""
