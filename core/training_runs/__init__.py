"""Training runs: trainings that a worker carries out, from uploaded images or from inspections.

    open ──start──► queued ──claim (attempt + 1, lease)──► running ──complete──► completed
                      ▲  ▲                                   │  │
                      │  └──release (the worker stops)───────┘  └──fail──► failed       cancel: from open, queued,
                      └─────reclaim (the lease expired)──────┘                          running ──► cancelled

`attempt` is a fencing token, like that of an inspection. Checkpoints in the store let the next attempt continue.
"""
