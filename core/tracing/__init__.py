"""Traces by OpenTelemetry, from an upload to its webhooks. Off unless the environment names where they go."""
