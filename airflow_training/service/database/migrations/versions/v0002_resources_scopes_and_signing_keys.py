"""Requested resources of jobs, scopes of clients, and the signing keys of tokens."""

from __future__ import annotations

import json

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Add them; existing jobs and clients keep their resources and their access."""
    op.create_table(
        "signing_keys",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("key", sa.String(128), nullable=False),
        sa.Column("created", sa.DateTime, nullable=False),
    )
    with op.batch_alter_table("clients") as clients:
        clients.add_column(sa.Column("scope", sa.String(255), nullable=False, server_default="jobs:read jobs:write"))
        clients.add_column(sa.Column("generation", sa.String(32), nullable=False, server_default="0"))
    with op.batch_alter_table("jobs") as jobs:
        jobs.add_column(sa.Column("cpus", sa.Integer, nullable=False, server_default="1"))
        jobs.add_column(sa.Column("memory", sa.Integer, nullable=False, server_default="1024"))
        jobs.add_column(sa.Column("gpus", sa.Integer, nullable=False, server_default="0"))
        jobs.add_column(sa.Column("gpu_ids", sa.Text, nullable=False, server_default=""))
    op.create_index("jobs_by_tenant", "jobs", ["tenant", "submitted"])
    op.create_index("jobs_by_finish", "jobs", ["finished", "tenant"])
    op.drop_index("jobs_by_state", "jobs")
    op.create_index("jobs_by_state", "jobs", ["state", "claimed", "submitted", "tenant"])
    _fill_in_requested_resources()


def _fill_in_requested_resources() -> None:
    jobs = sa.table(
        "jobs",
        *(sa.column(name) for name in ("tenant", "id", "description", "cpus", "memory", "gpus")),
    )
    connection = op.get_bind()
    for tenant, id_, description in connection.execute(sa.select(jobs.c.tenant, jobs.c.id, jobs.c.description)).all():
        resources = json.loads(description)["job"]["execution"].get("resources") or {}
        requested = {name: resources[name] for name in ("cpus", "memory", "gpus") if resources.get(name)}
        if requested:
            connection.execute(jobs.update().where(jobs.c.tenant == tenant, jobs.c.id == id_).values(**requested))
