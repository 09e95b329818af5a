"""Submission: idempotency keys, fields, image formats, and decoding within limits."""
