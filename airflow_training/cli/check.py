"""`airflow-training check`: whether a connection of Airflow leads to a training service that works."""

from __future__ import annotations

import os
from typing import Annotated

import typer


def check(
    conn_id: Annotated[str, typer.Argument(help="The connection, as Airflow knows it on this machine.")] = (
        "training_default"
    ),
) -> None:
    """Try a connection of Airflow: token, job API and storage, one after another."""
    # As `airflow connections test` does: without it, only tasks are given the connections of Airflow's database.
    os.environ["_AIRFLOW_PROCESS_CONTEXT"] = "server"

    from airflow_training.hooks.training import TrainingHook

    for works, said in TrainingHook(conn_id).check():
        typer.echo(f"{'ok' if works else 'failed':<8}{said}", err=not works)
        if not works:
            raise typer.Exit(1)
