"""`airflow-training check`: whether a training service can be used."""

from __future__ import annotations

import json

import typer

from airflow_training.cli.connection_options import ConnectionOption, ProfileOption, connect
from airflow_training.cli.output import FAILED, JsonOption, printable_lines


def check(connection: ConnectionOption = None, profile: ProfileOption = None, as_json: JsonOption = False) -> None:
    """Try what a training needs of the service, one after another: connection, token, job API and storage."""
    from airflow_training.client import diagnostics

    steps = []
    for works, said in diagnostics.check(lambda: connect(connection, profile, diagnostics.QUICK)):
        steps.append({"works": works, "said": said})
        if not as_json:
            typer.echo(f"{'ok' if works else 'failed':<8}{printable_lines(said)}", err=not works)
    if as_json:
        typer.echo(json.dumps(steps))
    if not steps[-1]["works"]:
        raise typer.Exit(FAILED)
