"""The job API: what a training service can be asked to do."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from airflow_training.api.curves import JobMetrics
from airflow_training.api.description import JobDescription
from airflow_training.api.log import NDJSON
from airflow_training.api.model_summary import ModelSummary
from airflow_training.api.status import JobStatus
from airflow_training.api.usage import JobUsage
from airflow_training.client.follow.watch_reply import WatchCursor, WatchEvent, read_events, watch_body
from airflow_training.client.retry import RetryPolicy
from airflow_training.client.settings import ClientSettings
from airflow_training.client.storage import JobStorage, StorageAccess
from airflow_training.client.transport import Reply, Transport
from airflow_training.exceptions import InvalidReply, JobLost, RequestRejected, StorageError

Model = TypeVar("Model", bound=BaseModel)

_NOTHING_NEW = 416
_NOT_FOUND = 404
_NO_SUCH_PATH = (404, 405, 501)
_STORAGE_INTERVAL = 1.0
_ASK_AGAIN = 1.0


@dataclass(frozen=True)
class LogChunk:
    """A piece of a job's log.

    Attributes:
        content: The bytes, none where there is nothing new.
        ndjson: Whether they are NDJSON records; otherwise they are plain text.
        size: Bytes of the whole log at that moment; None where the service does not tell.
    """

    content: bytes
    ndjson: bool
    size: int | None = None


class JobList(BaseModel):
    """The reply to a request for all jobs."""

    jobs: tuple[JobStatus, ...] | None = None  # Go writes an empty list as null


class TrainingClient:
    """A training service. An async context manager.

    Args:
        settings: Where it is and how it is spoken to.
        policy: When a request is made again.

    Every method raises AuthenticationError, ServiceUnavailable, RequestRejected or InvalidReply.

    Example:
        >>> async def names(settings: ClientSettings) -> list[str]:
        ...     async with TrainingClient(settings) as client:
        ...         return [status.name for status in await client.jobs()]
    """

    # With more lines alive at once, Python's garbage collector turns to all the objects of Airflow too, and the
    # triggerer stands still for a fifth of a second.
    LOG_CHUNK = 64 * 1024
    """The most bytes of a log that one request asks for."""

    def __init__(self, settings: ClientSettings, policy: RetryPolicy | None = None) -> None:
        self.settings = settings
        self._transport = Transport(settings, policy)

    async def __aenter__(self) -> TrainingClient:
        await self._transport.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._transport.__aexit__()

    async def storage(self, *, timeout: float = 300.0) -> JobStorage:
        """Acquire the storage, have it created where there is none, and wait until it is ready.

        Args:
            timeout: Seconds to wait for it.

        Raises:
            StorageError: It is not ready in time, or never will be; with the service's reason.
        """
        deadline = time.monotonic() + timeout
        access = await self._storage_access("GET")
        if not access.pending:
            access = access if access.ready else await self._storage_access("POST")
        while not access.ready:
            if access.failed or time.monotonic() > deadline:
                raise StorageError(
                    f"The storage of {self.settings.base_url} is not ready, it is {access.status or 'not there'}:"
                    f" {access.message or 'the service gives no reason'}. Ask whoever runs the service.",
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
        """Submit a job under an id of our choice. To repeat it does not make a second job."""

        def read(reply: Reply) -> JobStatus:
            said = reply.json() if reply.body else {}
            return _read(JobStatus, reply, {"job_id": job_id, "name": description.name, "status": "PENDING", **said})

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
            # A service that does not know repeated submits calls ours a conflict when the first reply was lost.
            if error.status != 409 or (found := await self.find(job_id)) is None or found.name != description.name:
                raise
            return found

    async def find(self, job_id: str) -> JobStatus | None:
        """Tell where a job stands; None where the service does not know it."""

        def read(reply: Reply) -> JobStatus | None:
            if _not_found(reply):
                return None
            return _read(JobStatus, reply, {"job_id": job_id, **reply.json()})

        return await self._transport.request("GET", f"/jobs/{job_id}", read=read, expect=(200, _NOT_FOUND))

    async def status(self, job_id: str) -> JobStatus:
        """Tell where a job stands.

        Raises:
            JobLost: The service does not know it, and still did not when it was asked again.
        """
        found = await self.find(job_id)
        if found is None:
            # A service that just restarted may not have read its jobs yet.
            await asyncio.sleep(_ASK_AGAIN)
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
            finished: How many that have ended to ask for at most, an extension of the job API; None leaves it to the
                service.
        """
        query = "" if finished is None else f"?finished={finished}"

        def read(reply: Reply) -> list[JobStatus]:
            return list(_read(JobList, reply, reply.json()).jobs or ())

        return await self._transport.request("GET", f"/jobs{query}", read=read)

    async def cancel(self, job_id: str) -> bool:
        """End a job, and tell whether the service knows it; one that has ended needs no ending."""
        expected = (200, 202, 204, _NOT_FOUND)
        return await self._transport.request(
            "DELETE", f"/jobs/{job_id}", read=lambda reply: not _not_found(reply), expect=expected
        )

    async def log(self, job_id: str, offset: int) -> LogChunk:
        """Read a job's log from a byte on, as far as it goes but at most `LOG_CHUNK` bytes."""
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
        """Tell the curves of a job's metrics, an extension of the job API; None where the service does not know it.

        Args:
            job_id: The job.
            points: How many points of each curve to ask for at most, 2 to 10,000.
        """
        return await self._extension(JobMetrics, f"/jobs/{job_id}/metrics?points={points}")

    async def usage(self, job_id: str, points: int = 500) -> JobUsage | None:
        """Tell what a job used of its machine, an extension of the job API; None where the service does not know it.

        Args:
            job_id: The job.
            points: How many samples to ask for at most, 2 to 10,000.
        """
        return await self._extension(JobUsage, f"/jobs/{job_id}/usage?points={points}")

    async def model(self, job_id: str) -> ModelSummary | None:
        """Describe the SavedModel that a job left, an extension of the job API; None where there is nothing to tell."""
        return await self._extension(ModelSummary, f"/jobs/{job_id}/model")

    async def _extension(self, model: type[Model], path: str) -> Model | None:
        def read(reply: Reply) -> Model | None:
            # Whatever a service says that was never asked for such a thing.
            return None if reply.status != 200 else _read(model, reply, reply.json())

        return await self._transport.request("GET", path, read=read, expect=(200, *_NO_SUCH_PATH))

    async def watch(
        self, cursors: Mapping[str, WatchCursor], *, wait: float, linger: float, policy: RetryPolicy
    ) -> list[WatchEvent]:
        """Wait for news of many jobs by one request, an extension of the job API.

        Args:
            cursors: What is known already of each job.
            wait: Seconds to wait for news; no news is an empty list.
            linger: Seconds that new lines of logs may be kept back, to be told with others.
            policy: When the request is made again.

        Raises:
            RequestRejected: The service does not know the extension, for instance.
        """
        return await self._transport.request(
            "POST",
            "/watch",
            read=read_events,
            body=watch_body(cursors, wait=wait, linger=linger),
            headers={"Content-Type": "application/json"},
            policy=policy,
        )


def _not_found(reply: Reply) -> bool:
    """Whether the service does not know what it was asked for; a gateway without a service says 404 too."""
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
    told = re.match(r"bytes ([0-9]+)-([0-9]+)/([0-9]+)?", reply.headers.get("Content-Range", ""))
    if told and len(reply.body) != int(told[2]) - int(told[1]) + 1:
        raise reply.not_the_api()  # half of it got lost: at the end of a job nobody would ask for the rest
    begin = int(told[1]) if told else offset if reply.status == 206 else 0
    known = offset - begin
    content = reply.body[known:] if known >= 0 else b""
    return LogChunk(content, ndjson=type_.startswith(NDJSON), size=int(told[3]) if told and told[3] else None)


def _read(model: type[Model], reply: Reply, document: dict[str, Any]) -> Model:
    try:
        return model.model_validate(document)
    except ValidationError as error:
        raise InvalidReply(
            f"{reply.url} answered with an object that is not the job API's {model.__name__}."
            " Check host, schema and port of the connection.",
            code="AT-222",
        ) from error
