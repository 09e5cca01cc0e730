"""Runners: what starts a job, follows it and ends it. A job is a process, a container, or a job on a Ray cluster."""
