"""`airflow-training clients`: who may use the embedded training service."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from airflow_training.cli.serve import DEFAULT_DATA, DataOption, errors_in_a_sentence

app = typer.Typer(help="OAuth2 clients of the training service.", no_args_is_help=True)


@app.command()
def add(
    client_id: Annotated[str | None, typer.Argument(help="Id of the client; a random one if not given.")] = None,
    tenant: Annotated[str, typer.Option(help="Whose jobs and files the client sees.")] = "default",
    data: DataOption = DEFAULT_DATA,
    as_json: Annotated[bool, typer.Option("--json", help="Write one JSON object.")] = False,
) -> None:
    """Add a client and show its secret, which is shown this once only. The service may run meanwhile."""
    with errors_in_a_sentence():
        from airflow_training.service.clients import Clients
        from airflow_training.service.database import open_database
        from airflow_training.service.settings import DataFolder

        folder = DataFolder.at(data)
        added = Clients(open_database(f"sqlite:///{folder.database}")).add(tenant, client_id)
    if as_json:
        facts = {"client_id": added.client_id, "client_secret": added.client_secret, "tenant": added.tenant}
        typer.echo(json.dumps(facts))
    else:
        typer.echo(
            f"client id      {added.client_id}\nclient secret  {added.client_secret}\ntenant         {added.tenant}"
        )
