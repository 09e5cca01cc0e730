"""`airflow-training serve`: the embedded training service."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from airflow_training.exceptions import TrainingError

DataOption = Annotated[
    Path, typer.Option(help="Folder that the service keeps everything in.", file_okay=False, envvar="TRAINING_DATA")
]
DEFAULT_DATA = Path("~/.airflow-training")


@contextmanager
def errors_in_a_sentence() -> Iterator[None]:
    """End the command with one sentence where the user can put it right: also where the service is not installed."""
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("airflow_training"):
            raise
        message = f"The training service needs {error.name}: install airflow-training with its extra, [service]."
        typer.echo(message, err=True)
        raise typer.Exit(1) from error
    except TrainingError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from error


def serve(
    data: DataOption = DEFAULT_DATA,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port of the job API; 0 takes a free one.", min=0, max=65535)] = 8900,
    storage_port: Annotated[
        int, typer.Option(help="Port of the S3 endpoint; 0 takes a free one.", min=0, max=65535)
    ] = 0,
    token_lifetime: Annotated[int, typer.Option(help="Seconds that an access token is good for.", min=1)] = 43200,
) -> None:
    """Run the training service until it is interrupted; jobs that run then go on."""
    with errors_in_a_sentence():
        from airflow_training.service import server
        from airflow_training.service.settings import ServiceSettings

        settings = ServiceSettings(data.expanduser(), host, port, storage_port, token_lifetime)
        server.serve(
            settings, lambda url: typer.echo(f"Training service ready at {url} (data in {settings.data.resolve()})")
        )
