"""`airflow-training clients`: who may use the embedded training service."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from airflow_training.cli.output import JsonOption, errors_of_the_service_in_a_sentence, show, show_one
from airflow_training.cli.serve import DEFAULT_DATA, DatabaseOption, DataOption, open_database_of

if TYPE_CHECKING:
    from airflow_training.service.accounts.clients import Clients, Credentials

app = typer.Typer(help="OAuth2 clients of the training service. The service may run meanwhile.", no_args_is_help=True)

ClientId = Annotated[str, typer.Argument(help="Id of the client.")]
SecretOption = Annotated[
    typer.FileText | None,
    typer.Option(
        "--secret-file",
        help="File with the secret, '-' for the standard input.",
        show_default="a new secret, which is shown",
        errors="replace",
    ),
]


@app.command()
def add(
    client_id: Annotated[str | None, typer.Argument(help="Id of the client; a random one if not given.")] = None,
    *,
    tenant: Annotated[str, typer.Option(help="Whose jobs and files the client sees.")] = "default",
    scope: Annotated[
        list[str] | None,
        typer.Option(help="What it may do: jobs:read, jobs:write. May be repeated.", show_default="both"),
    ] = None,
    secret_file: SecretOption = None,
    data: DataOption = DEFAULT_DATA,
    database_url: DatabaseOption = None,
    as_json: JsonOption = False,
) -> None:
    """Add a client; a new secret is shown this once only."""
    with errors_of_the_service_in_a_sentence():
        from airflow_training.service.accounts.clients import SCOPES

        secret = _read(secret_file)
        added = _clients(data, database_url).add(tenant, client_id, scope or SCOPES, secret)
        _show(added, with_secret=secret is None, as_json=as_json)


@app.command()
def rotate(
    client_id: ClientId,
    secret_file: SecretOption = None,
    data: DataOption = DEFAULT_DATA,
    database_url: DatabaseOption = None,
    as_json: JsonOption = False,
) -> None:
    """Give a client another secret; a new one is shown this once only. The old one ends at once, and its tokens too."""
    with errors_of_the_service_in_a_sentence():
        secret = _read(secret_file)
        rotated = _clients(data, database_url).rotate(client_id, secret)
        _show(rotated, with_secret=secret is None, as_json=as_json)


@app.command()
def remove(client_id: ClientId, data: DataOption = DEFAULT_DATA, database_url: DatabaseOption = None) -> None:
    """Remove a client, with its tokens; the jobs and files of its tenant stay."""
    with errors_of_the_service_in_a_sentence():
        _clients(data, database_url).remove(client_id)
        typer.echo(f"The client {client_id} is removed.")


@app.command("list")
def list_(data: DataOption = DEFAULT_DATA, database_url: DatabaseOption = None, as_json: JsonOption = False) -> None:
    """List the clients."""
    with errors_of_the_service_in_a_sentence():
        facts = [
            {
                "client_id": client.client_id,
                "tenant": client.tenant,
                "scope": " ".join(sorted(client.scope)),
                "created": client.created.isoformat(timespec="seconds"),
            }
            for client in _clients(data, database_url).all()
        ]
    show(facts, as_json=as_json)


def _clients(data: Path, database_url: str | None) -> Clients:
    from airflow_training.service.accounts.clients import Clients

    return Clients(open_database_of(data, database_url))


def _read(secret_file: typer.FileText | None) -> str | None:
    return None if secret_file is None else secret_file.read().strip()


def _show(added: Credentials, *, with_secret: bool, as_json: bool) -> None:
    """Show a client; a secret that was given is known, and stays where it is."""
    secret = {"client_secret": added.client_secret} if with_secret else {}
    show_one({"client_id": added.client_id, **secret, "tenant": added.tenant}, as_json=as_json)
