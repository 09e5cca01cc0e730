"""`airflow-training`: the commands of this package."""

from __future__ import annotations

import sys
from io import TextIOWrapper

import typer

from airflow_training.cli import clients
from airflow_training.cli.check import check
from airflow_training.cli.demo import demo
from airflow_training.cli.download import download
from airflow_training.cli.jobs import cancel, jobs, status
from airflow_training.cli.logs import logs
from airflow_training.cli.serve import serve
from airflow_training.cli.submit import submit
from airflow_training.cli.upkeep import prune, revoke_tokens

app = typer.Typer(
    help="Train models on a remote training service from Apache Airflow.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
_JOBS = "Jobs, without Airflow"
_SERVICE = "Run a training service"


@app.callback()
def _show_what_can_be_shown() -> None:
    # A job writes what it likes; a terminal that does not know a character must not end the command.
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")


app.command()(demo)
app.command()(check)
app.command(rich_help_panel=_JOBS)(submit)
app.command(rich_help_panel=_JOBS)(jobs)
app.command(rich_help_panel=_JOBS)(status)
app.command(rich_help_panel=_JOBS)(logs)
app.command(rich_help_panel=_JOBS)(cancel)
app.command(rich_help_panel=_JOBS)(download)
app.command(rich_help_panel=_SERVICE)(serve)
app.command(rich_help_panel=_SERVICE)(prune)
app.command(rich_help_panel=_SERVICE)(revoke_tokens)
app.add_typer(clients.app, name="clients", rich_help_panel=_SERVICE)

if __name__ == "__main__":
    app()
