"""`airflow-training submit`: submit the job that a file describes."""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, BinaryIO
from uuid import uuid4

import typer

from airflow_training.cli.connection_options import ConnectionOption, ProfileOption, connect
from airflow_training.cli.jobs import FollowOption, follow
from airflow_training.cli.output import JsonOption, print_errors, show_one

if TYPE_CHECKING:
    from airflow_training.api.description import JobDescription
    from airflow_training.api.status import JobStatus
    from airflow_training.client.client import TrainingClient


def submit(
    file: Annotated[
        Path,
        typer.Argument(
            help="Job file, YAML or JSON: the description that the job API takes, and below `files` the local files.",
            show_default=False,
        ),
    ],
    followed: FollowOption = False,
    connection: ConnectionOption = None,
    profile: ProfileOption = None,
    as_json: JsonOption = False,
) -> None:
    """Upload the files of a job and submit it."""
    with print_errors():
        from airflow_training.cli.job_file import read_job_file

        description, files = read_job_file(file)
        job_id = str(uuid4())
        status = asyncio.run(_submit(connect(connection, profile), job_id, description, files))
        show_one(status.to_wire() if as_json else {"job_id": job_id, "status": status.state.value}, as_json=as_json)
        if followed:
            follow(lambda policy: connect(connection, profile, policy), job_id, timestamps=False, as_json=as_json)


async def _submit(
    client: TrainingClient, job_id: str, description: JobDescription, files: dict[str, Path]
) -> JobStatus:
    from airflow_training.api.naming import job_folder
    from airflow_training.cli.output import progress
    from airflow_training.client.storage import TransferLog, Upload

    uploads = [Upload(name, partial(_open, path)) for name, path in files.items()]
    async with client:
        storage = await client.storage()
        size = sum(path.stat().st_size for path in files.values())
        with progress("Upload", size, len(files), TransferLog.UPLOAD) as view:
            await storage.upload(job_folder(description.name, job_id), uploads, view.file_done, view.bytes_done)
        # If the reply is lost, the job can be found by its id.
        typer.echo(f"Submitting the job {job_id}", err=True)
        return await client.submit(job_id, description)


def _open(path: Path) -> BinaryIO:
    return path.open("rb")
