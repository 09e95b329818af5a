"""The state of the running system: queues, workers, disk space, and its health in one line."""
