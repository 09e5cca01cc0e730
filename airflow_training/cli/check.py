"""`airflow-training check`: whether a training service is usable."""

from __future__ import annotations

import json

import typer

from airflow_training.cli.connection_options import ConnectionOption, ProfileOption, connect
from airflow_training.cli.output import FAILED, JsonOption, printable_lines


def check(connection: ConnectionOption = None, profile: ProfileOption = None, as_json: JsonOption = False) -> None:
    """Check the connection, the token, the job API and the storage of a training service."""
    from airflow_training.client import diagnostics
    from airflow_training.client.retry import CHECK

    steps = []
    for works, detail in diagnostics.check(lambda: connect(connection, profile, CHECK)):
        steps.append({"works": works, "detail": detail})
        if not as_json:
            typer.echo(f"{'ok' if works else 'failed':<8}{printable_lines(detail)}", err=not works)
    if as_json:
        typer.echo(json.dumps(steps))
    if not steps[-1]["works"]:
        raise typer.Exit(FAILED)
