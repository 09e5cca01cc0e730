"""`airflow-training download`: copy the results of a job."""

from __future__ import annotations

import asyncio
import shlex
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Annotated

import typer

from airflow_training.cli.connection_options import ConnectionOption, ProfileOption, connect
from airflow_training.cli.jobs import JobId, find
from airflow_training.cli.output import JsonOption, print_errors, printable, printable_lines, show_one
from airflow_training.exceptions import ModelMissing

if TYPE_CHECKING:
    from airflow_training.api.description import JobDescription
    from airflow_training.client.client import TrainingClient


# What the service shows in place of a secret.
_HIDDEN = "***"


def download(
    job_id: JobId,
    target: Annotated[Path, typer.Argument(help="Target folder.", file_okay=False, show_default=False)],
    everything: Annotated[
        bool, typer.Option("--all", help="Copy all files in the job's folder, not only its model.")
    ] = False,
    *,
    connection: ConnectionOption = None,
    profile: ProfileOption = None,
    as_json: JsonOption = False,
) -> None:
    """Copy the model of a job, the newest of several, into a folder. Unchanged files there are kept.

    The model is what the job hands on: what `model` in its description names, or else its SavedModel.
    """
    with print_errors():
        facts = asyncio.run(_download(connect(connection, profile), job_id, target, everything=everything))
        show_one(facts, as_json=as_json)


async def _download(client: TrainingClient, job_id: str, target: Path, *, everything: bool) -> dict[str, str | int]:
    from airflow_training.api.naming import job_folder
    from airflow_training.cli.output import progress
    from airflow_training.client.download import download as copy
    from airflow_training.client.storage import TransferLog

    async with client:
        status = await find(client, job_id)
        storage = await client.storage()
        folder = job_folder(status.name, job_id)
        files = await storage.files(folder)
        copied = folder
        if not everything:
            path, choice = await _model(client, job_id, [file.key.removeprefix(f"{folder}/") for file in files])
            copied = str(PurePosixPath(folder, path))
            files = [file for file in files if path and (file.key == copied or file.key.startswith(f"{copied}/"))]
            if not files:
                state = status.state.value
                raise ModelMissing(
                    f"The job {job_id} ({state}) has left no model: neither what its description names"
                    " nor, if that names none, a SavedModel. `--all` copies all its files.",
                    code="AT-404",
                    job_id=job_id,
                )
            if choice:
                typer.echo(printable(choice), err=True)
            # A file is copied by its name.
            folder = copied if files[0].key != copied else str(PurePosixPath(copied).parent)
        size = sum(file.size for file in files)
        written: list[Path] = []
        with progress("Download", size, len(files), TransferLog.DOWNLOAD) as view:

            def done(path: Path, was_copied: bool) -> None:
                view.file_done(str(path), path.stat().st_size, was_copied)
                if was_copied:
                    written.append(path)

            await copy(storage, folder, files, target, done=done, progress=view.bytes_done)
        if everything and (description := await client.description(job_id)):
            typer.echo(printable_lines(_how_to_run(description, target)), err=True)
    return {"from": copied, "to": str(target), "files": len(files), "copied": len(written), "bytes": size}


async def _model(client: TrainingClient, job_id: str, files: Sequence[str]) -> tuple[str, str]:
    """Return the path of a job's model, empty if it has none, and which of several it is, in a sentence."""
    from airflow_training.api.model import describe_choice, find_models

    if model := await client.model(job_id):
        return model.path, model.choice
    # A service that does not describe metrics does not describe models either.
    models = [] if await client.metrics(job_id, points=2) else find_models(files)
    return (models[0], describe_choice(models)) if models else ("", "")


def _how_to_run(description: JobDescription, target: Path) -> str:
    """The command line that runs the job here, for a shell."""
    variables = [f"{variable.name}={variable.text}" for variable in description.env]
    run = shlex.join(["env", *variables, "sh", "-c", description.execution.command])
    remark = f"; write its secrets in place of {_HIDDEN}" if _HIDDEN in run else ""
    return f"To run it here{remark}:\ncd {shlex.quote(str(target))} && {run}"
