"""Who may use the service: OAuth2 clients and their tokens."""
