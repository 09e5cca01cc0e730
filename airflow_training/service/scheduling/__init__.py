"""Which job runs when, and with which resources: the job table, the queue, the capacity."""
