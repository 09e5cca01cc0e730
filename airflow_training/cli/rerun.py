"""`airflow-training rerun`: run a job again, with the same files and with changes."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated, Any
from uuid import uuid4

import typer

from airflow_training.cli.connection_options import ConnectionOption, ProfileOption, connect
from airflow_training.cli.jobs import FollowOption, JobId, find, follow
from airflow_training.cli.output import JsonOption, print_errors, show_one
from airflow_training.exceptions import InvalidParameters

if TYPE_CHECKING:
    from airflow_training.api.rerun import JobChanges
    from airflow_training.api.status import JobStatus
    from airflow_training.client.client import TrainingClient

_CHANGES = "Changes"


def rerun(
    job_id: JobId,
    *,
    name: Annotated[str | None, typer.Option(help="Name.", rich_help_panel=_CHANGES)] = None,
    image: Annotated[str | None, typer.Option(help="Container image.", rich_help_panel=_CHANGES)] = None,
    completion_time: Annotated[
        str | None, typer.Option(help="Time limit, such as 20h.", rich_help_panel=_CHANGES)
    ] = None,
    cpus: Annotated[int | None, typer.Option(help="CPUs.", min=1, rich_help_panel=_CHANGES)] = None,
    gpus: Annotated[int | None, typer.Option(help="GPUs.", min=0, rich_help_panel=_CHANGES)] = None,
    memory: Annotated[int | None, typer.Option(help="Memory in MB.", min=1, rich_help_panel=_CHANGES)] = None,
    env: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE",
            help="Variable, also changed in the argument --name=… of the command. Can be repeated.",
            rich_help_panel=_CHANGES,
        ),
    ] = None,
    command: Annotated[str | None, typer.Option(help="Command.", rich_help_panel=_CHANGES)] = None,
    followed: FollowOption = False,
    connection: ConnectionOption = None,
    profile: ProfileOption = None,
    as_json: JsonOption = False,
) -> None:
    """Run a job again, with the files that it began with. The service copies them; nothing is uploaded."""
    resources = {"cpus": cpus, "gpus": gpus, "memory": memory}
    given: dict[str, Any] = {
        "name": name,
        "image": image,
        "command": command,
        "completion_time": completion_time,
        "resources": {key: value for key, value in resources.items() if value is not None} or None,
        "env": [_variable(text) for text in env or ()],
    }
    with print_errors():
        changes = _read(given)
        new_id = str(uuid4())
        status = asyncio.run(_rerun(connect(connection, profile), job_id, new_id, changes))
        show_one(status.to_wire() if as_json else {"job_id": new_id, "status": status.state.value}, as_json=as_json)
        if followed:
            follow(lambda policy: connect(connection, profile, policy), new_id, timestamps=False, as_json=as_json)


def _variable(text: str) -> dict[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        # Not quoted: it may be a secret without its name.
        raise typer.BadParameter("--env takes NAME=VALUE.")
    return {"name": name, "value": value}


def _read(given: dict[str, Any]) -> JobChanges:
    """The changes; raises InvalidParameters."""
    from pydantic import ValidationError

    from airflow_training.api.description import validation_errors
    from airflow_training.api.rerun import JobChanges

    try:
        return JobChanges.model_validate(given)
    except ValidationError as error:
        raise InvalidParameters(validation_errors(error)) from None


async def _rerun(client: TrainingClient, job_id: str, new_id: str, changes: JobChanges) -> JobStatus:
    async with client:
        await find(client, job_id)
        # If the reply is lost, the job can be found by its id.
        typer.echo(f"Submitting the job {new_id}", err=True)
        return await client.rerun(job_id, new_id, changes)
