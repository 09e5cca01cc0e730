"""The client of a training service: every request of the job API."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from airflow_training.api.description import JobDescription
from airflow_training.api.insights import JobEnvironment, JobMetrics, JobUsage, ModelSummary
from airflow_training.api.log import NDJSON
from airflow_training.api.rerun import JobChanges, RerunRequest
from airflow_training.api.status import JobList, JobState, JobStatus
from airflow_training.api.storage import StorageAccess
from airflow_training.api.watch import WatchCursor, WatchEvent, WatchRequest, read_events
from airflow_training.client.retry import RetryPolicy
from airflow_training.client.settings import ClientSettings
from airflow_training.client.storage import JobStorage
from airflow_training.client.transport import Reply, Transport
from airflow_training.exceptions import InvalidReply, JobLost, RequestRejected, StorageError

Model = TypeVar("Model", bound=BaseModel)

_NOTHING_NEW = 416
_NOT_FOUND = 404
_NO_SUCH_PATH = (404, 405, 501)
_STORAGE_INTERVAL = 1.0
_RETRY_UNKNOWN = 1.0


@dataclass(frozen=True)
class LogChunk:
    """A piece of a job's log.

    Attributes:
        content: The bytes; empty if there is nothing new.
        ndjson: Whether they are NDJSON records, or else plain text.
        size: Bytes of the whole log at that moment; None if the service does not return it.
    """

    content: bytes
    ndjson: bool
    size: int | None = None


class TrainingClient:
    """A training service. An async context manager.

    Args:
        settings: The service and its credentials.
        policy: When a request is retried.

    Every method raises AuthenticationError, ServiceUnavailable, RequestRejected or InvalidReply.

    Example:
        >>> async def names(settings: ClientSettings) -> list[str]:
        ...     async with TrainingClient(settings) as client:
        ...         return [status.name for status in await client.jobs()]
    """

    # With more lines alive at once, Python's garbage collector visits all objects of Airflow too, and stops the
    # triggerer for a fifth of a second.
    LOG_CHUNK = 64 * 1024
    """The most bytes of a log that one request returns."""

    def __init__(self, settings: ClientSettings, policy: RetryPolicy | None = None) -> None:
        self.settings = settings
        self._transport = Transport(settings, policy)

    async def __aenter__(self) -> TrainingClient:
        await self._transport.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._transport.__aexit__()

    async def storage(self, *, timeout: float = 300.0) -> JobStorage:
        """Return the storage once it is ready; create it if there is none.

        Args:
            timeout: Seconds to wait for it.

        Raises:
            StorageError: It is not ready in time or never will be; with the service's reason.
        """
        deadline = time.monotonic() + timeout
        access = await self._storage_access("GET")
        if not access.pending:
            access = access if access.ready else await self._storage_access("POST")
        while not access.ready:
            if access.failed or time.monotonic() > deadline:
                raise StorageError(
                    f"The storage of {self.settings.base_url} is not ready (status: {access.status or 'none'}):"
                    f" {access.message or 'the service gives no reason'}. Ask the administrator of the service.",
                    code="AT-301",
                )
            await asyncio.sleep(_STORAGE_INTERVAL)
            access = await self._storage_access("GET")
        return JobStorage(access, self.settings)

    async def _storage_access(self, method: str) -> StorageAccess:
        def read(reply: Reply) -> StorageAccess:
            return StorageAccess() if _not_found(reply) else _read(StorageAccess, reply, reply.json())

        return await self._transport.request(method, "/storage", read=read, expect=(200, 201, 202, _NOT_FOUND))

    async def submit(self, job_id: str, description: JobDescription) -> JobStatus:
        """Submit a job under an id of the caller's choice; a repeated submit does not make a second job."""

        def read(reply: Reply) -> JobStatus:
            document = reply.json() if reply.body else {}
            return _read(
                JobStatus, reply, {"job_id": job_id, "name": description.name, "status": "PENDING", **document}
            )

        try:
            return await self._transport.request(
                "POST",
                f"/jobs/{job_id}",
                read=read,
                body=json.dumps(description.to_wire()).encode(),
                headers={"Content-Type": "application/json"},
                expect=(200, 201, 202),
            )
        except RequestRejected as error:
            # If the reply to the first submit was lost, an old service rejects the repeated one as a conflict.
            if error.status != 409 or (found := await self.find(job_id)) is None or found.name != description.name:
                raise
            return found

    async def description(self, job_id: str) -> JobDescription | None:
        """Return the description of a job as it was submitted, with `***` for each secret.

        An extension of the job API; None if the service does not have it, or does not know the job.
        """
        return await self._extension(JobDescription, f"/jobs/{job_id}/description")

    async def rerun(self, job_id: str, new_id: str, changes: JobChanges | None = None) -> JobStatus:
        """Run a job again under an id of the caller's choice, with the files that it began with; safe to repeat.

        The service copies the files, so the job may have been submitted from anywhere.

        Args:
            job_id: The job.
            new_id: The id of the new job.
            changes: What differs; nothing by default.

        Raises:
            RequestRejected: The job cannot run again, or the service does not have this extension of the job API.
        """
        request = RerunRequest(job_id=new_id, changes=changes or JobChanges())

        def read(reply: Reply) -> JobStatus | None:
            # A service without the extension.
            return None if reply.status in _NO_SUCH_PATH else _read(JobStatus, reply, reply.json())

        while True:
            status = await self._transport.request(
                "POST",
                f"/jobs/{job_id}/rerun",
                read=read,
                body=json.dumps(request.to_wire()).encode(),
                headers={"Content-Type": "application/json"},
                expect=(200, 202, *_NO_SUCH_PATH),
            )
            if status is None:
                await self.status(job_id)
                raise RequestRejected(
                    f"{self.settings.base_url} cannot run a job again: it does not have this extension of the job API."
                    " Submit the job with its files.",
                    status=_NOT_FOUND,
                    code="AT-234",
                )
            if status.submission_time or status.state is not JobState.PENDING:
                return status

    async def find(self, job_id: str) -> JobStatus | None:
        """Return the status of a job; None if the service does not know it."""

        def read(reply: Reply) -> JobStatus | None:
            if _not_found(reply):
                return None
            return _read(JobStatus, reply, {"job_id": job_id, **reply.json()})

        return await self._transport.request("GET", f"/jobs/{job_id}", read=read, expect=(200, _NOT_FOUND))

    async def status(self, job_id: str) -> JobStatus:
        """Return the status of a job.

        Raises:
            JobLost: The service does not know the job, at the second request either.
        """
        found = await self.find(job_id)
        if found is None:
            # A service that just restarted may not have read its jobs yet.
            await asyncio.sleep(_RETRY_UNKNOWN)
            found = await self.find(job_id)
        if found is None:
            raise JobLost(
                f"The training service does not know the job {job_id} any more: it may have been removed. Clear the"
                " task to train again.",
                code="AT-405",
                job_id=job_id,
                over=False,
            )
        return found

    async def jobs(self, finished: int | None = None) -> list[JobStatus]:
        """List the jobs; a finished one may have dropped off the list.

        Args:
            finished: The most jobs to list that have ended, an extension of the job API; None leaves it to the service.
        """
        query = "" if finished is None else f"?finished={finished}"
        return await self._transport.request(
            "GET", f"/jobs{query}", read=lambda reply: _read(JobList, reply, reply.json()).jobs
        )

    async def cancel(self, job_id: str) -> bool:
        """Cancel a job, and return whether the service knows it; a job that has ended stays as it is."""
        expected = (200, 202, 204, _NOT_FOUND)
        return await self._transport.request(
            "DELETE", f"/jobs/{job_id}", read=lambda reply: not _not_found(reply), expect=expected
        )

    async def log(self, job_id: str, offset: int) -> LogChunk:
        """Read a job's log from an offset, at most `LOG_CHUNK` bytes."""
        return await self._transport.request(
            "GET",
            f"/jobs/{job_id}/logs",
            read=lambda reply: _log_chunk(reply, offset),
            headers={
                "Accept": f"{NDJSON}, text/plain;q=0.5",
                "Range": f"bytes={offset}-{offset + self.LOG_CHUNK - 1}",
            },
            expect=(200, 206, _NOTHING_NEW, _NOT_FOUND),
        )

    async def metrics(self, job_id: str, points: int = 1000) -> JobMetrics | None:
        """Return the curves of a job's metrics, an extension of the job API; None if the service does not have it.

        Args:
            job_id: The job.
            points: The most points of each curve, 2 to 10,000.
        """
        return await self._extension(JobMetrics, f"/jobs/{job_id}/metrics?points={points}")

    async def usage(self, job_id: str, points: int = 500) -> JobUsage | None:
        """Return the resource usage of a job, an extension of the job API; None if the service does not have it.

        Args:
            job_id: The job.
            points: The most samples, 2 to 10,000.
        """
        return await self._extension(JobUsage, f"/jobs/{job_id}/usage?points={points}")

    async def environment(self, job_id: str) -> JobEnvironment | None:
        """Return what a job ran with, an extension of the job API; None without a list of it or the extension."""
        return await self._extension(JobEnvironment, f"/jobs/{job_id}/environment")

    async def model(self, job_id: str) -> ModelSummary | None:
        """Describe what a job hands on, an extension of the job API; None without it or without the extension."""
        return await self._extension(ModelSummary, f"/jobs/{job_id}/model")

    async def _extension(self, model: type[Model], path: str) -> Model | None:
        def read(reply: Reply) -> Model | None:
            # A service without the extension.
            return None if reply.status != 200 else _read(model, reply, reply.json())

        return await self._transport.request("GET", path, read=read, expect=(200, *_NO_SUCH_PATH))

    async def watch(
        self, cursors: Mapping[str, WatchCursor], *, wait: float, batch_window: float, policy: RetryPolicy
    ) -> list[WatchEvent]:
        """Wait for events of many jobs with one long poll, an extension of the job API.

        Args:
            cursors: What is known of each job.
            wait: Seconds to wait for an event; the list is empty if there is none.
            batch_window: Seconds for which new log lines alone are batched.
            policy: When the request is retried.

        Raises:
            RequestRejected: The service does not have the extension, for instance.
        """

        def read(reply: Reply) -> list[WatchEvent]:
            try:
                return read_events(reply.body)
            except ValueError as error:
                raise reply.not_the_api() from error

        request = WatchRequest.model_construct(jobs=dict(cursors), wait=wait, batch_window=batch_window)
        return await self._transport.request(
            "POST",
            "/watch",
            read=read,
            body=request.model_dump_json().encode(),
            headers={"Content-Type": "application/json"},
            policy=policy,
        )


def _not_found(reply: Reply) -> bool:
    """Whether the service replies 404; raises InvalidReply for the 404 of a gateway without a service."""
    if reply.status != _NOT_FOUND:
        return False
    if "error" not in reply.json():
        raise reply.not_the_api()
    return True


def _log_chunk(reply: Reply, offset: int) -> LogChunk:
    if _not_found(reply) or reply.status not in (200, 206):
        return LogChunk(b"", ndjson=False)
    type_ = reply.headers.get("Content-Type", "text/plain")
    if "html" in type_:
        raise reply.not_the_api()
    # A service without byte ranges sends the whole log each time.
    span = re.match(r"bytes ([0-9]+)-([0-9]+)/([0-9]+)?", reply.headers.get("Content-Range", ""))
    if span and len(reply.body) != int(span[2]) - int(span[1]) + 1:
        raise reply.not_the_api()  # truncated: after the end of a job the rest would never be requested
    begin = int(span[1]) if span else offset if reply.status == 206 else 0
    known = offset - begin
    content = reply.body[known:] if known >= 0 else b""
    return LogChunk(content, ndjson=type_.startswith(NDJSON), size=int(span[3]) if span and span[3] else None)


def _read(model: type[Model], reply: Reply, document: dict[str, Any]) -> Model:
    try:
        return model.model_validate(document)
    except ValidationError as error:
        raise InvalidReply(
            f"{reply.url} returned an object that is not the job API's {model.__name__}."
            " Check host, schema and port of the connection.",
            code="AT-222",
        ) from error
