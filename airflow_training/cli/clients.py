"""`airflow-training clients`: the OAuth2 clients of the training service."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from airflow_training.cli.output import JsonOption, print_service_errors, show, show_one
from airflow_training.cli.serve import DEFAULT_DATA, DatabaseOption, DataOption, open_database_of

if TYPE_CHECKING:
    from airflow_training.service.accounts.clients import Clients, IssuedCredentials

app = typer.Typer(help="Manage the OAuth2 clients of the training service, even while it runs.", no_args_is_help=True)

ClientId = Annotated[str, typer.Argument(help="Id of the client.")]
SecretOption = Annotated[
    typer.FileText | None,
    typer.Option(
        "--secret-file",
        help="File with the secret, '-' for the standard input.",
        show_default="a new secret, which is printed",
        errors="replace",
    ),
]


@app.command()
def add(
    client_id: Annotated[str | None, typer.Argument(help="Id of the client; random if not given.")] = None,
    *,
    tenant: Annotated[str, typer.Option(help="Tenant whose jobs and files the client can access.")] = "default",
    scope: Annotated[
        list[str] | None,
        typer.Option(help="Scope: jobs:read or jobs:write. Can be repeated.", show_default="both"),
    ] = None,
    secret_file: SecretOption = None,
    data: DataOption = DEFAULT_DATA,
    database_url: DatabaseOption = None,
    as_json: JsonOption = False,
) -> None:
    """Add a client; a new secret is printed only once."""
    with print_service_errors():
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
    """Replace a client's secret; a new one is printed only once. The old one and its tokens are revoked at once."""
    with print_service_errors():
        secret = _read(secret_file)
        rotated = _clients(data, database_url).rotate(client_id, secret)
        _show(rotated, with_secret=secret is None, as_json=as_json)


@app.command()
def remove(client_id: ClientId, data: DataOption = DEFAULT_DATA, database_url: DatabaseOption = None) -> None:
    """Remove a client and revoke its tokens; the jobs and files of its tenant stay."""
    with print_service_errors():
        _clients(data, database_url).remove(client_id)
        typer.echo(f"The client {client_id} has been removed.")


@app.command("list")
def list_(data: DataOption = DEFAULT_DATA, database_url: DatabaseOption = None, as_json: JsonOption = False) -> None:
    """List the clients."""
    with print_service_errors():
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


def _show(added: IssuedCredentials, *, with_secret: bool, as_json: bool) -> None:
    """Print a client; a secret from a file is not printed."""
    secret = {"client_secret": added.client_secret} if with_secret else {}
    show_one({"client_id": added.client_id, **secret, "tenant": added.tenant}, as_json=as_json)
