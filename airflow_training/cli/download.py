"""`airflow-training download`: copy the results of a job."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from airflow_training.cli.connection_options import ConnectionOption, ProfileOption, connect
from airflow_training.cli.jobs import JobId, find
from airflow_training.cli.output import JsonOption, print_errors, printable, show_one
from airflow_training.exceptions import SavedModelMissing

if TYPE_CHECKING:
    from airflow_training.client.client import TrainingClient


def download(
    job_id: JobId,
    target: Annotated[Path, typer.Argument(help="Target folder.", file_okay=False, show_default=False)],
    everything: Annotated[
        bool, typer.Option("--all", help="Copy all files in the job's folder, not only its SavedModel.")
    ] = False,
    *,
    connection: ConnectionOption = None,
    profile: ProfileOption = None,
    as_json: JsonOption = False,
) -> None:
    """Copy the SavedModel of a job, the newest of several, into a folder. Unchanged files there are kept."""
    with print_errors():
        facts = asyncio.run(_download(connect(connection, profile), job_id, target, everything=everything))
        show_one(facts, as_json=as_json)


async def _download(client: TrainingClient, job_id: str, target: Path, *, everything: bool) -> dict[str, str | int]:
    from airflow_training.api.naming import job_folder
    from airflow_training.api.saved_model import describe_choice, find_saved_models
    from airflow_training.cli.output import progress
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
                state = status.state.value
                raise SavedModelMissing(
                    f"The job {job_id} ({state}) has left no SavedModel: there is no saved_model.pb in"
                    " its folder. `--all` copies all its files.",
                    code="AT-404",
                    job_id=job_id,
                )
            folder = models[0]
            if choice := describe_choice(models):
                typer.echo(printable(choice), err=True)
            files = [file for file in files if file.key.startswith(f"{folder}/")]
        size = sum(file.size for file in files)
        copied: list[Path] = []
        with progress("Download", size, len(files), TransferLog.DOWNLOAD) as view:

            def done(path: Path, was_copied: bool) -> None:
                view.file_done(str(path), path.stat().st_size, was_copied)
                if was_copied:
                    copied.append(path)

            await copy(storage, folder, files, target, done=done, progress=view.bytes_done)
    return {"from": folder, "to": str(target), "files": len(files), "copied": len(copied), "bytes": size}
