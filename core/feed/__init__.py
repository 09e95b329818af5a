"""The feed of results: entries, cursors, consumers, and the events that webhooks send."""
