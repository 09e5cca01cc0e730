"""`airflow-training prune` and `revoke-tokens`: what whoever runs the embedded service does by hand now and then."""

from __future__ import annotations

from typing import Annotated

import typer

from airflow_training.cli.output import errors_of_the_service_in_a_sentence
from airflow_training.cli.serve import (
    DEFAULT_DATA,
    MOST_DAYS,
    DatabaseOption,
    DataOption,
    open_database_of,
)


def prune(
    keep_days: Annotated[
        float, typer.Option(help="Jobs that ended more than so many days ago are removed.", min=0, max=MOST_DAYS)
    ],
    data: DataOption = DEFAULT_DATA,
    database_url: DatabaseOption = None,
) -> None:
    """Remove old jobs of the training service: status, log and folder, and so their models. It may run meanwhile."""
    with errors_of_the_service_in_a_sentence():
        from airflow_training.service.scheduling import maintenance
        from airflow_training.service.scheduling.capacity import detect
        from airflow_training.service.scheduling.job_table import JobTable
        from airflow_training.service.settings import DataFolder
        from airflow_training.service.storage.bucket import buckets_of

        folder = DataFolder.at(data)
        jobs = JobTable(open_database_of(data, database_url), detect())
        removed = maintenance.prune(jobs, folder, buckets_of(folder), keep_days)
    typer.echo("1 job was removed." if removed == 1 else f"{removed} jobs were removed.")


def revoke_tokens(data: DataOption = DEFAULT_DATA, database_url: DatabaseOption = None) -> None:
    """Sign tokens with a new key from now on: all that were issued before are refused within seconds.

    Clients get new ones by themselves. Keys are replaced by themselves too, each 30 days; this is for a key that
    somebody has seen.
    """
    with errors_of_the_service_in_a_sentence():
        from airflow_training.service.accounts.tokens import Tokens

        Tokens(open_database_of(data, database_url), lifetime=0).rotate(revoke=True)
    typer.echo("All access tokens that were issued so far are revoked.")
