"""Jobs as processes of the service's machine."""
