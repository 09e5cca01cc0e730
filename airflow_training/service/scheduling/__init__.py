"""Which job runs when, and on what: the job table, the queue, the capacity."""
