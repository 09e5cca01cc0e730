"""`airflow-training`: the commands of this package."""

from __future__ import annotations

import os
import sys
from io import TextIOWrapper
from typing import NoReturn

import typer

from airflow_training.cli import clients
from airflow_training.cli.check import check
from airflow_training.cli.demo import demo
from airflow_training.cli.download import download
from airflow_training.cli.jobs import cancel, jobs, logs, status
from airflow_training.cli.maintenance import prune, revoke_tokens
from airflow_training.cli.rerun import rerun
from airflow_training.cli.serve import serve
from airflow_training.cli.submit import submit
from airflow_training.cli.validate import validate

app = typer.Typer(
    help="Train models on a remote training service from Apache Airflow.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
_JOBS = "Jobs, without Airflow"
_SERVICE = "Run a training service"


@app.callback()
def _replace_unencodable_output() -> None:
    # A job may log any character; one that the terminal cannot encode must not end the command.
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")


app.command()(demo)
app.command()(check)
app.command()(validate)
app.command(rich_help_panel=_JOBS)(submit)
app.command(rich_help_panel=_JOBS)(rerun)
app.command(rich_help_panel=_JOBS)(jobs)
app.command(rich_help_panel=_JOBS)(status)
app.command(rich_help_panel=_JOBS)(logs)
app.command(rich_help_panel=_JOBS)(cancel)
app.command(rich_help_panel=_JOBS)(download)
app.command(rich_help_panel=_SERVICE)(serve)
app.command(rich_help_panel=_SERVICE)(prune)
app.command(rich_help_panel=_SERVICE)(revoke_tokens)
app.add_typer(clients.app, name="clients", rich_help_panel=_SERVICE)


def main() -> NoReturn:
    """Run a command, and exit as soon as its output is written.

    Python's own finalization aborts now and then (SIGABRT, before 3.14): a thread of obstore that has yet to release a
    Python object waits for the interpreter, and is ended amid Rust code. Source: PyO3/pyo3-async-runtimes, issue 40.
    """
    try:
        app()
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else bool(end.code)
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except OSError:  # the reader of a pipe is gone, or the disk is full
        status = status or 1
    os._exit(status)


if __name__ == "__main__":
    main()
