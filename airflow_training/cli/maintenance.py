"""`airflow-training prune` and `revoke-tokens`: occasional maintenance of the training service."""

from __future__ import annotations

from typing import Annotated

import typer

from airflow_training.cli.output import print_service_errors
from airflow_training.cli.serve import (
    DEFAULT_DATA,
    MAX_DAYS,
    DatabaseOption,
    DataOption,
    open_database_of,
)


def prune(
    keep_days: Annotated[
        float, typer.Option(help="Remove the jobs that ended more than this many days ago.", min=0, max=MAX_DAYS)
    ],
    data: DataOption = DEFAULT_DATA,
    database_url: DatabaseOption = None,
) -> None:
    """Remove old jobs with their status, log, folder and model. The service may be running."""
    with print_service_errors():
        from airflow_training.service.scheduling import maintenance
        from airflow_training.service.scheduling.capacity import detect
        from airflow_training.service.scheduling.job_table import JobTable
        from airflow_training.service.settings import DataFolder
        from airflow_training.service.storage.bucket import open_buckets

        folder = DataFolder.at(data)
        jobs = JobTable(open_database_of(data, database_url), detect())
        removed = maintenance.prune(jobs, folder, open_buckets(folder), keep_days)
    typer.echo("1 job was removed." if removed == 1 else f"{removed} jobs were removed.")


def revoke_tokens(data: DataOption = DEFAULT_DATA, database_url: DatabaseOption = None) -> None:
    """Revoke all access tokens within seconds, by replacing the signing key.

    Clients get new tokens automatically, and keys are replaced automatically every 30 days. Use this if a key has
    leaked.
    """
    with print_service_errors():
        from airflow_training.service.accounts.tokens import Tokens

        Tokens(open_database_of(data, database_url), lifetime=0).rotate(revoke=True)
    typer.echo("All access tokens issued so far are revoked.")
