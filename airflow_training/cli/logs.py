"""`airflow-training logs`: the log of a job."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Annotated

import typer

from airflow_training.cli.connection_options import ConnectionOption, ProfileOption, connect
from airflow_training.cli.follow import follow, write
from airflow_training.cli.jobs import JobId, find
from airflow_training.cli.output import errors_in_a_sentence

if TYPE_CHECKING:
    from airflow_training.api.log import LogRecord
    from airflow_training.client.client import TrainingClient


def logs(
    job_id: JobId,
    followed: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on until the job has ended, and exit with 3 if it failed.")
    ] = False,
    timestamps: Annotated[bool, typer.Option("--timestamps", "-t", help="Show when each line was written.")] = False,
    *,
    connection: ConnectionOption = None,
    profile: ProfileOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Write a JSON object for each line.")] = False,
) -> None:
    """Show what a job has written. Lost connections are made again, and no line is shown twice."""
    with errors_in_a_sentence():
        if followed:
            follow(lambda policy: connect(connection, profile, policy), job_id, timestamps, as_json=as_json)
        else:
            asyncio.run(_show(connect(connection, profile), job_id, timestamps, as_json=as_json))


async def _show(client: TrainingClient, job_id: str, timestamps: bool, *, as_json: bool) -> None:
    async with client:
        await find(client, job_id)
        state: list[LogRecord] = []
        async for records in _read(client, job_id):
            # A state that the line has left behind is of use only to a reader who waited for it.
            write([record for record in records if not record.unended], timestamps, as_json=as_json)
            state = [record for record in records[-1:] if record.unended] if records else state
        write(state, timestamps, as_json=as_json)


async def _read(client: TrainingClient, job_id: str) -> AsyncIterator[list[LogRecord]]:
    """Read as much of a log as there is now: one that grows as fast as it is read has an end too."""
    from airflow_training.api.log import LogDecoder

    chunk = await client.log(job_id, 0)
    decoder, end, offset = LogDecoder(ndjson=chunk.ndjson), chunk.size, 0
    while chunk.content:
        # What was written since would end within a record.
        content = chunk.content if end is None else chunk.content[: end - offset]
        yield decoder.feed(content)
        offset += len(content)
        if end is not None and offset >= end:
            break
        chunk = await client.log(job_id, offset)
    yield decoder.flush()
