"""`airflow-training download`: what a job has left behind."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from airflow_training.cli.connection_options import ConnectionOption, ProfileOption, connect
from airflow_training.cli.jobs import JobId, find
from airflow_training.cli.output import JsonOption, errors_in_a_sentence, printable, show_one
from airflow_training.exceptions import SavedModelMissing

if TYPE_CHECKING:
    from airflow_training.client.client import TrainingClient


def download(
    job_id: JobId,
    target: Annotated[Path, typer.Argument(help="Folder to put it into.", file_okay=False, show_default=False)],
    everything: Annotated[
        bool, typer.Option("--all", help="All that lies in the job's folder, not its SavedModel only.")
    ] = False,
    *,
    connection: ConnectionOption = None,
    profile: ProfileOption = None,
    as_json: JsonOption = False,
) -> None:
    """Copy the SavedModel of a job to this machine, of several the newest. What is the same there is kept."""
    with errors_in_a_sentence():
        facts = asyncio.run(_download(connect(connection, profile), job_id, target, everything=everything))
        show_one(facts, as_json=as_json)


async def _download(client: TrainingClient, job_id: str, target: Path, *, everything: bool) -> dict[str, str | int]:
    from airflow_training.api.naming import job_folder
    from airflow_training.api.saved_model import choice_among, find_saved_models
    from airflow_training.cli.progress import progress
    from airflow_training.client.download import download as copy
    from airflow_training.client.storage import TransferLog

    async with client:
        status = await find(client, job_id)
        storage = await client.storage()
        folder = job_folder(status.name, job_id)
        files = await storage.files(folder)
        if not everything:
            models = find_saved_models(file.key for file in files)
            if not models:
                raise SavedModelMissing(
                    f"The job {job_id} ({status.state.value}) has left no SavedModel: no saved_model.pb lies in its"
                    " folder. `--all` copies what it has left.",
                    code="AT-404",
                    job_id=job_id,
                )
            folder = models[0]
            if choice := choice_among(models):
                typer.echo(printable(choice), err=True)
            files = [file for file in files if file.key.startswith(f"{folder}/")]
        size = sum(file.size for file in files)
        copied: list[Path] = []
        with progress("Download", size, len(files), TransferLog.DOWNLOAD) as shown:

            def done(path: Path, was_copied: bool) -> None:
                shown.file_done(str(path), path.stat().st_size, was_copied)
                if was_copied:
                    copied.append(path)

            await copy(storage, folder, files, target, done=done, progress=shown.bytes_done)
    return {"from": folder, "to": str(target), "files": len(files), "copied": len(copied), "bytes": size}
