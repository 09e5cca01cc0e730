"""What the watch extension of the job API tells: the news of many jobs in one reply."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from pydantic import ValidationError
from pydantic_core import from_json, to_json

from airflow_training.api.status import JobStatus
from airflow_training.client.transport import Reply


class WatchCursor(NamedTuple):
    """What is known of a job already.

    Attributes:
        offset: The byte of the log from which on news are wanted.
        seen: The tag of the status that is known; empty where none is.
    """

    offset: int
    seen: str


class WatchEvent(NamedTuple):
    """The news of one job.

    Attributes:
        job_id: The job.
        known: Whether the service knows it; if not, the rest means nothing.
        status: Where it stands; None where that is what was known.
        seen: The tag of that status.
        offset: The byte of the log that the content begins with.
        content: New bytes of the log, as NDJSON.
        size: Bytes of the whole log.
    """

    job_id: str
    known: bool = True
    status: JobStatus | None = None
    seen: str = ""
    offset: int = 0
    content: bytes = b""
    size: int = 0


def watch_body(cursors: Mapping[str, WatchCursor], *, wait: float, linger: float) -> bytes:
    """Write the request for the news of jobs.

    >>> watch_body({"7": WatchCursor(10, "")}, wait=20, linger=1)
    b'{"jobs":{"7":{"offset":10,"seen":""}},"wait":20,"linger":1}'
    """
    jobs = {job_id: {"offset": offset, "seen": seen} for job_id, (offset, seen) in cursors.items()}
    return to_json({"jobs": jobs, "wait": wait, "linger": linger})


def read_events(reply: Reply) -> list[WatchEvent]:
    """Read a reply: for each job a line of JSON, then as many bytes of log as that line says.

    Raises:
        InvalidReply: It is something else.
    """
    events = []
    begin = 0
    while begin < len(reply.body):
        end = reply.body.find(b"\n", begin)
        try:
            if end < 0:
                raise ValueError("half a line")
            event, begin = _event(reply.body, end + 1, from_json(reply.body[begin:end]))
        except (ValueError, KeyError, TypeError, AttributeError, ValidationError) as error:
            raise reply.not_the_api() from error
        events.append(event)
    return events


def _event(body: bytes, begin: int, line: dict[str, Any]) -> tuple[WatchEvent, int]:
    """The event that a line tells, and where the next one begins."""
    job_id = str(line["job_id"])
    if line.get("unknown"):
        return WatchEvent(job_id, known=False), begin
    status = JobStatus.model_validate(line["status"]) if "status" in line else None
    end = begin + int(line["bytes"])
    if not begin <= end <= len(body):
        raise ValueError("half a log")
    content = body[begin:end]
    return WatchEvent(job_id, True, status, str(line["seen"]), int(line["offset"]), content, int(line["size"])), end
