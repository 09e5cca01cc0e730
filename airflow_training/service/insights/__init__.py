"""Read from a job's files: metric curves, resource usage, model signatures."""
