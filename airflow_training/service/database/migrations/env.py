"""What Alembic runs for each of its commands: `upgrade` has the connection ready."""

from __future__ import annotations

from alembic import context

context.configure(connection=context.config.attributes["connection"])
context.run_migrations()
