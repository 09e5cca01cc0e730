"""`airflow-training clients`: who may use the embedded training service."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from airflow_training.cli.serve import DEFAULT_DATA, DatabaseOption, DataOption, errors_in_a_sentence, open_database_of

if TYPE_CHECKING:
    from airflow_training.service.clients import Clients, Credentials

app = typer.Typer(help="OAuth2 clients of the training service. The service may run meanwhile.", no_args_is_help=True)

JsonOption = Annotated[bool, typer.Option("--json", help="Write JSON.")]
ClientId = Annotated[str, typer.Argument(help="Id of the client.")]


@app.command()
def add(
    client_id: Annotated[str | None, typer.Argument(help="Id of the client; a random one if not given.")] = None,
    *,
    tenant: Annotated[str, typer.Option(help="Whose jobs and files the client sees.")] = "default",
    scope: Annotated[
        list[str] | None,
        typer.Option(help="What it may do: jobs:read, jobs:write. May be repeated.", show_default="both"),
    ] = None,
    data: DataOption = DEFAULT_DATA,
    database_url: DatabaseOption = None,
    as_json: JsonOption = False,
) -> None:
    """Add a client and show its secret, which is shown this once only."""
    with errors_in_a_sentence():
        from airflow_training.service.clients import SCOPES

        _show(_clients(data, database_url).add(tenant, client_id, scope or SCOPES), as_json=as_json)


@app.command()
def rotate(
    client_id: ClientId,
    data: DataOption = DEFAULT_DATA,
    database_url: DatabaseOption = None,
    as_json: JsonOption = False,
) -> None:
    """Give a client a new secret and show it once; the old one ends at once, and its tokens too."""
    with errors_in_a_sentence():
        _show(_clients(data, database_url).rotate(client_id), as_json=as_json)


@app.command()
def remove(client_id: ClientId, data: DataOption = DEFAULT_DATA, database_url: DatabaseOption = None) -> None:
    """Remove a client, with its tokens; the jobs and files of its tenant stay."""
    with errors_in_a_sentence():
        _clients(data, database_url).remove(client_id)
        typer.echo(f"The client {client_id} is removed.")


@app.command("list")
def list_(data: DataOption = DEFAULT_DATA, database_url: DatabaseOption = None, as_json: JsonOption = False) -> None:
    """List the clients."""
    with errors_in_a_sentence():
        facts = [
            {
                "client_id": client.client_id,
                "tenant": client.tenant,
                "scope": " ".join(sorted(client.scope)),
                "created": client.created.isoformat(timespec="seconds"),
            }
            for client in _clients(data, database_url).all()
        ]
    if as_json:
        typer.echo(json.dumps(facts))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table("client id", "tenant", "scope", "created", box=None)
    for client in facts:
        table.add_row(*client.values())
    Console().print(table)


def _clients(data: Path, database_url: str | None) -> Clients:
    from airflow_training.service.clients import Clients

    return Clients(open_database_of(data, database_url))


def _show(added: Credentials, *, as_json: bool) -> None:
    if as_json:
        facts = {"client_id": added.client_id, "client_secret": added.client_secret, "tenant": added.tenant}
        typer.echo(json.dumps(facts))
    else:
        typer.echo(
            f"client id      {added.client_id}\nclient secret  {added.client_secret}\ntenant         {added.tenant}"
        )
