"""The worker processes (Celery) and the dispatcher."""
