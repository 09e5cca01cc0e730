"""The embedded training service: the job API on one machine, with jobs as processes of it."""
