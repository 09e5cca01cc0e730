"""What runs in the supervisor of a job: one process for each job, which outlives the service."""
