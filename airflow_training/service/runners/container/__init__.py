"""Jobs in containers: runner in the service, backend in the supervisor, helper in a child process of it."""
