"""The routes of re-scoring: runs, reports, schedules, challengers and activations."""
