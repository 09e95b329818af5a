"""Work in flight, one row of the table `work` for each inspection that is not final.

    queued ──claim (attempt + 1, lease)──► running ──finish──► completed | failed      (a row of `inspections`)
      ▲  ▲                                   │  │
      │  └──release (model not loadable)─────┘  └──cancel──► cancelled                 (likewise)
      └─────reclaim (the lease expired)──────┘

Every transition is one statement, guarded by the state that it leaves: `claiming`, `finishing` and `leases`. `attempt`
is a fencing token: a finish counts only for the attempt that claimed the row, so a worker that lost its lease writes
nothing. `publishing` finds rows that no message names.
"""
