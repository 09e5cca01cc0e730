"""`airflow-training jobs`, `status` and `cancel`: the jobs of a training service."""

from __future__ import annotations

import asyncio
import re
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Annotated

import typer

from airflow_training.cli.connection_options import ConnectionOption, ProfileOption, connect
from airflow_training.cli.output import JsonOption, errors_in_a_sentence, printable_lines, show, show_one
from airflow_training.exceptions import JobLost

if TYPE_CHECKING:
    from airflow_training.api.status import JobStatus
    from airflow_training.client.client import TrainingClient


def _id(text: str) -> str:
    # It becomes a part of a path. The client that submits a job chooses its id, and not each chooses a UUID.
    if not re.fullmatch(r"[\w-][\w.-]*", text, re.ASCII):
        raise typer.BadParameter(f"{text!r} cannot be the id of a job.")
    return text


JobId = Annotated[str, typer.Argument(help="Id of the job.", parser=_id, show_default=False)]


def jobs(connection: ConnectionOption = None, profile: ProfileOption = None, as_json: JsonOption = False) -> None:
    """List the jobs, the newest first; a finished one drops off the list after a while."""
    with errors_in_a_sentence():
        statuses = asyncio.run(_list(connect(connection, profile)))
    show([status.to_wire() if as_json else _row(status) for status in statuses], as_json=as_json)


def status(
    job_id: JobId, connection: ConnectionOption = None, profile: ProfileOption = None, as_json: JsonOption = False
) -> None:
    """Tell where a job stands."""
    with errors_in_a_sentence():
        found = asyncio.run(_find(connect(connection, profile), job_id))
    show_one(found.to_wire() if as_json else _facts(found), as_json=as_json)


def cancel(
    job_ids: Annotated[list[str], typer.Argument(help="Ids of the jobs.", parser=_id, show_default=False)],
    connection: ConnectionOption = None,
    profile: ProfileOption = None,
) -> None:
    """End jobs; one that has ended stays as it is."""
    with errors_in_a_sentence():
        asyncio.run(_cancel_all(connect(connection, profile), job_ids))


async def find(client: TrainingClient, job_id: str) -> JobStatus:
    """Tell where a job stands.

    Raises:
        JobLost: The service does not know it.
    """
    if found := await client.find(job_id):
        return found
    raise JobLost(
        f"{client.settings.base_url} does not know the job {job_id}: `airflow-training jobs` lists those that it does.",
        code="AT-406",
        job_id=job_id,
    )


async def _list(client: TrainingClient) -> list[JobStatus]:
    async with client:
        statuses = await client.jobs()
    never = datetime.min.replace(tzinfo=timezone.utc)
    return sorted(statuses, key=lambda status: status.submission_time or never, reverse=True)


async def _find(client: TrainingClient, job_id: str) -> JobStatus:
    async with client:
        return await find(client, job_id)


async def _cancel_all(client: TrainingClient, job_ids: list[str]) -> None:
    async with client:
        outcomes = await asyncio.gather(*(_cancel(client, job_id) for job_id in job_ids), return_exceptions=True)
    errors = [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
    for said in outcomes:
        if isinstance(said, str):
            typer.echo(said)
    for error in errors[1:]:
        typer.echo(printable_lines(error), err=True)
    if errors:
        raise errors[0]


async def _cancel(client: TrainingClient, job_id: str) -> str:
    found = await find(client, job_id)
    if found.state.ended:
        return f"The job {job_id} had ended: {found.state.value}."
    await client.cancel(job_id)
    return f"The job {job_id} is canceled."


def _row(status: JobStatus) -> dict[str, str]:
    return {
        "job id": status.job_id,
        "name": status.name,
        "status": status.state.value,
        "submitted": _local(status.submission_time),
        "took": _took(status),
        "message": status.message,
    }


def _facts(status: JobStatus) -> dict[str, str]:
    facts = {
        "job_id": status.job_id,
        "name": status.name,
        "status": status.state.value,
        "message": status.message,
        "submitted": _local(status.submission_time),
        "started": _local(status.start_time),
        "finished": _local(status.finish_time),
        "took": _took(status),
        "container_id": status.container_id,
    }
    return {name: value for name, value in facts.items() if value}


def _local(time: datetime | None) -> str:
    return f"{time.astimezone():%Y-%m-%d %H:%M:%S}" if time else ""


def _took(status: JobStatus) -> str:
    """How long it took, or takes since it was started."""
    if not status.start_time or (status.state.ended and not status.finish_time):
        return ""
    took = (status.finish_time or datetime.now(timezone.utc)) - status.start_time
    return str(timedelta(seconds=max(0, round(took.total_seconds()))))
