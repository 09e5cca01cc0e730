"""OAuth2 clients and their access tokens."""
