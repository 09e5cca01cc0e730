"""`airflow-training`: the commands of this package."""

from __future__ import annotations

import typer

from airflow_training.cli import clients
from airflow_training.cli.check import check
from airflow_training.cli.demo import demo
from airflow_training.cli.serve import serve
from airflow_training.cli.upkeep import prune, revoke_tokens

app = typer.Typer(
    help="Train models on a remote training service from Apache Airflow.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.command()(demo)
app.command()(check)
app.command()(serve)
app.add_typer(clients.app, name="clients")
app.command()(prune)
app.command()(revoke_tokens)

if __name__ == "__main__":
    app()
