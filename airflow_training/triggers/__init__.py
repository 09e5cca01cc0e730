"""Triggers: following a training without a worker slot."""
