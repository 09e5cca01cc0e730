"""Following a job from a terminal to its end."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import typer

from airflow_training.cli.jobs import find
from airflow_training.cli.output import JOB_FAILED, printable

if TYPE_CHECKING:
    from airflow_training.api.log import LogRecord
    from airflow_training.api.status import JobStatus
    from airflow_training.client.client import TrainingClient
    from airflow_training.client.follow.update import News
    from airflow_training.client.retry import RetryPolicy

# Seconds without an answer after which whoever waits is told; and for which a service may be away.
_SILENCE = 10.0
_PATIENCE = 15 * 60.0


def follow(connect: Callable[[RetryPolicy], TrainingClient], job_id: str, timestamps: bool, *, as_json: bool) -> None:
    """Show the log of a job until it has ended; exits with `JOB_FAILED` where it did not succeed.

    Args:
        connect: Makes a client of the service.
        job_id: The job.
        timestamps: Whether to show when each line was written.
        as_json: Whether to show each line as a JSON object.

    Raises:
        JobLost: The service does not know the job.
        ServiceUnavailable: The service was away for too long.
    """
    from airflow_training.api.status import JobState
    from airflow_training.client.retry import RetryPolicy

    patient = RetryPolicy(budget=_PATIENCE)

    def take(news: News) -> None:
        write(news.records, timestamps, as_json=as_json)

    try:
        # A service that cannot be reached at first is told of soon.
        known = asyncio.run(_begin(connect(RetryPolicy()), job_id))
        status = asyncio.run(_follow(lambda: connect(patient), job_id, known, take))
    except KeyboardInterrupt:
        typer.echo(f"The job {job_id} runs on: `airflow-training cancel {job_id}` ends it.", err=True)
        raise typer.Exit(130) from None
    _tell(status)
    if status.state is not JobState.SUCCEEDED:
        raise typer.Exit(JOB_FAILED)


async def _begin(client: TrainingClient, job_id: str) -> JobStatus:
    async with client:
        known = await find(client, job_id)
    if not known.state.ended:
        _tell(known)
    return known


async def _follow(
    connect: Callable[[], TrainingClient], job_id: str, known: JobStatus, take: Callable[[News], None]
) -> JobStatus:
    from airflow_training.client.follow.watcher import Watcher

    async def once_more() -> TrainingClient:
        return await asyncio.to_thread(connect)

    async with Watcher(connect(), once_more, patience=_PATIENCE) as watcher:
        silent = False
        with watcher.follower(job_id, 0, take) as follower:
            while not follower.ended:
                await follower.changed(_SILENCE / 2)
                if follower.status and follower.status != known:
                    known = follower.status
                    if not known.state.ended:
                        _tell(known)
                # One whose lines wait to be shown is not asked for.
                unheard = time.monotonic() - follower.last_heard > _SILENCE and not follower.busy
                was_silent, silent = silent, unheard
                if silent != was_silent:
                    said = "does not answer, and is asked again" if silent else "answers again"
                    typer.echo(f"{watcher.client.settings.base_url} {said}.", err=True)
    return known


def write(records: Iterable[LogRecord], timestamps: bool, *, as_json: bool) -> None:
    """Write lines of a log to the standard output.

    Args:
        records: The lines.
        timestamps: Whether to show when each was written, where the service tells.
        as_json: Whether to write each as a JSON object.
    """
    for record in records:
        if as_json:
            sys.stdout.write(record.to_ndjson().decode())
        else:
            time_of_day = f"{record.time.astimezone():%H:%M:%S} " if timestamps and record.time else ""
            sys.stdout.write(f"{time_of_day}{record.line}\n")
    sys.stdout.flush()


def _tell(status: JobStatus) -> None:
    """Say where a job stands, beside its log."""
    reason = f": {printable(status.message)}" if status.message else ""
    job = f"The job {printable(status.name)} ({printable(status.job_id)})"
    typer.echo(f"{job} is {status.state.value}{reason}", err=True)
