"""The rules of Linewatch, without HTTP and without Celery. A room imports only rooms below it."""
