"""`airflow-training jobs`, `status`, `logs` and `cancel`: the jobs of a training service."""

from __future__ import annotations

import asyncio
import re
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterable
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Annotated, Any

import typer

from airflow_training.cli.connection_options import ConnectionOption, ProfileOption, connect
from airflow_training.cli.output import (
    JOB_FAILED,
    JsonOption,
    print_errors,
    printable,
    printable_lines,
    show,
    show_one,
)
from airflow_training.exceptions import JobLost

if TYPE_CHECKING:
    from airflow_training.api.description import JobDescription
    from airflow_training.api.log import LogRecord
    from airflow_training.api.status import JobStatus
    from airflow_training.client.client import TrainingClient
    from airflow_training.client.follow.update import Update
    from airflow_training.client.retry import RetryPolicy

# Seconds without an answer until that is reported.
_SILENCE = 10.0


def _id(text: str) -> str:
    # It becomes a part of a path. The client that submits a job chooses the id, which need not be a UUID.
    if not re.fullmatch(r"[\w-][\w.-]*", text, re.ASCII):
        raise typer.BadParameter(f"{text!r} is not a valid job id.")
    return text


JobId = Annotated[str, typer.Argument(help="Id of the job.", parser=_id, show_default=False)]
FollowOption = Annotated[
    bool, typer.Option("--follow", "-f", help="Show the log until the job ends; exit with 3 unless it succeeds.")
]
"""The option of commands that submit a job."""


def jobs(connection: ConnectionOption = None, profile: ProfileOption = None, as_json: JsonOption = False) -> None:
    """List jobs, newest first. Of the jobs that have ended, only the newest are listed."""
    with print_errors():
        statuses = asyncio.run(_list(connect(connection, profile)))
    show([status.to_wire() if as_json else _row(status) for status in statuses], as_json=as_json)


def status(
    job_id: JobId, connection: ConnectionOption = None, profile: ProfileOption = None, as_json: JsonOption = False
) -> None:
    """Show the status of a job; with --json also what was submitted, with *** for each secret."""
    with print_errors():
        shown = asyncio.run(_status(connect(connection, profile), job_id, as_json=as_json))
    show_one(shown, as_json=as_json)


def logs(
    job_id: JobId,
    followed: Annotated[
        bool, typer.Option("--follow", "-f", help="Continue until the job ends; exit with 3 unless it succeeds.")
    ] = False,
    timestamps: Annotated[bool, typer.Option("--timestamps", "-t", help="Show the time of each line.")] = False,
    *,
    connection: ConnectionOption = None,
    profile: ProfileOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON object for each line.")] = False,
) -> None:
    """Show the log of a job. Lost connections are reestablished, and no line is shown twice."""
    with print_errors():
        if followed:
            follow(lambda policy: connect(connection, profile, policy), job_id, timestamps, as_json=as_json)
        else:
            asyncio.run(_show(connect(connection, profile), job_id, timestamps, as_json=as_json))


def cancel(
    job_ids: Annotated[list[str], typer.Argument(help="Ids of the jobs.", parser=_id, show_default=False)],
    connection: ConnectionOption = None,
    profile: ProfileOption = None,
) -> None:
    """Cancel jobs. A job that has ended keeps its status."""
    with print_errors():
        asyncio.run(_cancel_all(connect(connection, profile), job_ids))


async def find(client: TrainingClient, job_id: str) -> JobStatus:
    """The status of a job.

    Raises:
        JobLost: The service does not know it.
    """
    if found := await client.find(job_id):
        return found
    raise JobLost(
        f"{client.settings.base_url} does not know the job {job_id}: `airflow-training jobs` lists its jobs.",
        code="AT-406",
        job_id=job_id,
    )


async def _list(client: TrainingClient) -> list[JobStatus]:
    async with client:
        statuses = await client.jobs()
    never = datetime.min.replace(tzinfo=timezone.utc)
    return sorted(statuses, key=lambda status: status.submission_time or never, reverse=True)


async def _status(client: TrainingClient, job_id: str, *, as_json: bool) -> dict[str, Any]:
    async with client:
        found = await find(client, job_id)
        if not as_json:
            return _facts(found)
        description = await client.description(job_id)
    return {**found.to_wire(), **(_submitted(description) if description else {})}


async def _cancel_all(client: TrainingClient, job_ids: list[str]) -> None:
    async with client:
        outcomes = await asyncio.gather(*(_cancel(client, job_id) for job_id in job_ids), return_exceptions=True)
    errors = [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
    for outcome in outcomes:
        if isinstance(outcome, str):
            typer.echo(outcome)
    for error in errors[1:]:
        typer.echo(printable_lines(error), err=True)
    if errors:
        raise errors[0]


async def _cancel(client: TrainingClient, job_id: str) -> str:
    found = await find(client, job_id)
    if found.state.ended:
        return f"The job {job_id} has already ended: {found.state.value}."
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


def _submitted(description: JobDescription) -> dict[str, Any]:
    """The description of a job as `status --json` prints it."""
    return {
        **description.execution.model_dump(by_alias=True),
        "environment": {variable.name: variable.text for variable in description.env},
        "rerunOf": description.rerun_of,
    }


def _local(time: datetime | None) -> str:
    return f"{time.astimezone():%Y-%m-%d %H:%M:%S}" if time else ""


def _took(status: JobStatus) -> str:
    if not status.start_time or (status.state.ended and not status.finish_time):
        return ""
    took = (status.finish_time or datetime.now(timezone.utc)) - status.start_time
    return str(timedelta(seconds=max(0, round(took.total_seconds()))))


def follow(connect: Callable[[RetryPolicy], TrainingClient], job_id: str, timestamps: bool, *, as_json: bool) -> None:
    """Show the log of a job until it has ended; exits with `JOB_FAILED` if it did not succeed.

    Args:
        connect: Makes a client of the service.
        job_id: The job.
        timestamps: Whether to show when each line was written.
        as_json: Whether to show each line as a JSON object.

    Raises:
        JobLost: The service does not know the job.
        ServiceUnavailable: The service was unreachable for too long.
    """
    from airflow_training.api.status import JobState
    from airflow_training.client.retry import FOLLOW, REQUEST

    def take(update: Update) -> None:
        write(update.records, timestamps, as_json=as_json)

    try:
        # A service that is unreachable at first is reported soon.
        known = asyncio.run(_begin(connect(REQUEST), job_id))
        status = asyncio.run(_follow(lambda: connect(FOLLOW), job_id, known, take))
    except KeyboardInterrupt:
        typer.echo(f"The job {job_id} keeps running. To cancel it: airflow-training cancel {job_id}", err=True)
        raise typer.Exit(130) from None
    _print_status(status)
    if status.state is not JobState.SUCCEEDED:
        raise typer.Exit(JOB_FAILED)


async def _begin(client: TrainingClient, job_id: str) -> JobStatus:
    async with client:
        known = await find(client, job_id)
    if not known.state.ended:
        _print_status(known)
    return known


async def _follow(
    connect: Callable[[], TrainingClient], job_id: str, known: JobStatus, take: Callable[[Update], None]
) -> JobStatus:
    from airflow_training.client.follow.watcher import Watcher
    from airflow_training.client.retry import FOLLOW

    async def reconnect() -> TrainingClient:
        return await asyncio.to_thread(connect)

    async with Watcher(connect(), reconnect, patience=FOLLOW.budget) as watcher:
        silent = False
        with watcher.subscribe(job_id, 0, take) as subscription:
            while not subscription.ended:
                await subscription.changed(_SILENCE / 2)
                if subscription.status and subscription.status != known:
                    known = subscription.status
                    if not known.state.ended:
                        _print_status(known)
                # While its lines wait to be shown, the job is not requested.
                late = time.monotonic() - subscription.answered_at > _SILENCE and not subscription.busy
                was_silent, silent = silent, late
                if silent != was_silent:
                    event = "does not respond; retrying" if silent else "responds again"
                    typer.echo(f"{watcher.client.settings.base_url} {event}.", err=True)
    return known


def write(records: Iterable[LogRecord], timestamps: bool, *, as_json: bool) -> None:
    """Write lines of a log to the standard output.

    Args:
        records: The lines.
        timestamps: Whether to show when each was written, if the service knows.
        as_json: Whether to write each as a JSON object.
    """
    for record in records:
        if as_json:
            sys.stdout.write(record.to_ndjson().decode())
        else:
            time_of_day = f"{record.time.astimezone():%H:%M:%S} " if timestamps and record.time else ""
            sys.stdout.write(f"{time_of_day}{record.line}\n")
    sys.stdout.flush()


def _print_status(status: JobStatus) -> None:
    """Print the status of a job beside its log."""
    reason = f": {printable(status.message)}" if status.message else ""
    job = f"The job {printable(status.name)} ({printable(status.job_id)})"
    typer.echo(f"{job} is {status.state.value}{reason}", err=True)


async def _show(client: TrainingClient, job_id: str, timestamps: bool, *, as_json: bool) -> None:
    async with client:
        await find(client, job_id)
        state: list[LogRecord] = []
        async for records in _read(client, job_id):
            # Of a line that is redrawn, such as a progress bar, only the last state matters afterwards.
            write([record for record in records if not record.unended], timestamps, as_json=as_json)
            state = [record for record in records[-1:] if record.unended] if records else state
        write(state, timestamps, as_json=as_json)


async def _read(client: TrainingClient, job_id: str) -> AsyncIterator[list[LogRecord]]:
    """Read the log as it is now: reading ends even if the job writes as fast as it is read."""
    from airflow_training.api.log import LogDecoder

    chunk = await client.log(job_id, 0)
    decoder, end, offset = LogDecoder(ndjson=chunk.ndjson), chunk.size, 0
    while chunk.content:
        # What was written since may end within a record.
        content = chunk.content if end is None else chunk.content[: end - offset]
        yield decoder.feed(content)
        offset += len(content)
        if end is not None and offset >= end:
            break
        chunk = await client.log(job_id, offset)
    yield decoder.flush()
