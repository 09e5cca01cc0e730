"""What runs in the supervisor of a job, a process for each job that outlives the service."""
