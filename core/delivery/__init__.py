"""Webhooks and MQTT: endpoints, allowed targets, deliveries, signatures and the retry schedule."""
