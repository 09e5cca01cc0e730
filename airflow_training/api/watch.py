"""The watch extension: one long-poll request covers many jobs, one reply carries the events of all of them.

The request names each job with its log offset and status ETag. The reply has a line of JSON for each job with an event,
followed by as many bytes of its log as that line states.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from msgspec import Struct
from pydantic import BaseModel, ConfigDict, Field
from pydantic_core import from_json

from airflow_training.api.naming import JOB_ID
from airflow_training.api.status import JobStatus

MAX_JOBS = 10_000
"""The most jobs of a request."""


@dataclass(frozen=True)
class WatchCursor:
    """How much a client already has of a job.

    Attributes:
        offset: The byte of the log at which new records begin.
        etag: The ETag of the known status; empty if none is known.
    """

    __pydantic_config__ = ConfigDict(strict=True)

    offset: Annotated[int, Field(ge=0, description="Offset of new records in the NDJSON log, in bytes.")]
    etag: Annotated[str, Field(max_length=64, description="ETag of the last status received; empty if there is none.")]


class WatchRequest(BaseModel):
    """The jobs that a client watches."""

    model_config = ConfigDict(strict=True)

    jobs: dict[Annotated[str, Field(pattern=JOB_ID)], WatchCursor] = Field(
        max_length=MAX_JOBS, description="The client's cursor for each job, by job id."
    )
    wait: float = Field(20, ge=0, le=30, allow_inf_nan=False, description="Maximum seconds to wait for an event.")
    batch_window: float = Field(
        0, ge=0, le=10, allow_inf_nan=False, description="Seconds for which new log lines alone are batched."
    )


class WatchEvent(Struct, frozen=True, gc=False):
    """What is new about one job.

    Attributes:
        job_id: The job.
        known: Whether the service knows the job; if not, the rest is meaningless.
        status: Its status; None if that has not changed.
        etag: The ETag of its status.
        offset: The byte of the log at which the content begins.
        content: New bytes of the log.
        size: Bytes of the whole log.
        ndjson: Whether the content is NDJSON; that of a polled service may be plain text.
        log_error: Why the log of a polled service could not be read.
    """

    job_id: str
    known: bool = True
    status: JobStatus | None = None
    etag: str = ""
    offset: int = 0
    content: bytes = b""
    size: int = 0
    ndjson: bool = True
    log_error: str = ""


def write_event(job_id: str, *, etag: str, offset: int, content: bytes, size: int, status: str) -> bytes:
    """Write an event.

    Args:
        job_id: The job.
        etag: The ETag of its status.
        offset: The byte of the log at which the content begins.
        content: New bytes of the log.
        size: Bytes of the whole log.
        status: Its status as JSON; empty if that has not changed.
    """
    # An id and an ETag need no escapes.
    line = f'{{"job_id": "{job_id}", "etag": "{etag}", "offset": {offset}, "bytes": {len(content)}, "size": {size}'
    return (f'{line}, "status": {status}}}\n' if status else f"{line}}}\n").encode() + content


def write_unknown(job_id: str) -> bytes:
    """Write the event of a job that the service does not know."""
    return f'{{"job_id": "{job_id}", "unknown": true}}\n'.encode()


def read_events(body: bytes) -> list[WatchEvent]:
    """Read a reply; raises ValueError if it is something else.

    >>> [event] = read_events(write_event("7", etag="a1", offset=10, content=b"line", size=14, status=""))
    >>> event.etag, event.offset, event.content
    ('a1', 10, b'line')
    """
    events = []
    begin = 0
    while begin < len(body):
        end = body.find(b"\n", begin)
        if end < 0:
            raise ValueError("half a line")
        try:
            event, begin = _read_event(body, end + 1, from_json(body[begin:end]))
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError("no event") from error
        events.append(event)
    return events


def _read_event(body: bytes, begin: int, line: dict[str, Any]) -> tuple[WatchEvent, int]:
    """Return the event of a line and the begin of the next one."""
    job_id = str(line["job_id"])
    if line.get("unknown"):
        return WatchEvent(job_id, known=False), begin
    status = JobStatus.model_validate(line["status"]) if "status" in line else None
    end = begin + int(line["bytes"])
    if not begin <= end <= len(body):
        raise ValueError("half a log")
    content = body[begin:end]
    return WatchEvent(job_id, True, status, str(line["etag"]), int(line["offset"]), content, int(line["size"])), end
