"""Jobs on a Ray cluster: runner in the service, backend in the supervisor, helper in a child process, node on Ray."""
