"""The senders of results: webhooks with a queue for each endpoint, and MQTT."""
