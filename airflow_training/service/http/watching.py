"""What is new of many jobs at once: their statuses, and what they have written."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from airflow_training.service.http.log_shares import LARGEST_SHARE, GrownLog, shared_out
from airflow_training.service.runners.runner import JobKey
from airflow_training.service.runners.supervisor.job_log import RECORDS_FILE
from airflow_training.service.scheduling.status_cache import KnownStatus, Statuses
from airflow_training.service.settings import JOB_ID

MOST_JOBS = 10_000
LONGEST_WAIT = 30
LONGEST_LINGER = 10


class Known(BaseModel):
    """What the client knows of a job."""

    model_config = ConfigDict(strict=True)

    offset: int = Field(ge=0, description="From which byte of its records on the log is wanted.")
    seen: str = Field(max_length=64, description="The tag of the status, as an earlier reply gave it; or empty.")


class Watch(BaseModel):
    """The jobs that a client watches."""

    model_config = ConfigDict(strict=True)

    jobs: dict[Annotated[str, Field(pattern=JOB_ID)], Known] = Field(
        max_length=MOST_JOBS, description="What the client knows, by the id of the job."
    )
    wait: float = Field(
        20,
        ge=0,
        le=LONGEST_WAIT,
        allow_inf_nan=False,
        description="Seconds that the reply may take while there is no news.",
    )
    linger: float = Field(
        0,
        ge=0,
        le=LONGEST_LINGER,
        allow_inf_nan=False,
        description="Seconds that new lines alone may be kept back, so that a reply tells more of them.",
    )


class News(NamedTuple):
    """What is new.

    Attributes:
        content: As it travels; empty where nothing is.
        urgent: Whether it is more than a few new lines: a change of a status, a job that is unknown or has ended, as
            much log as a reply holds of one job, or more than one reply holds.
    """

    content: bytes
    urgent: bool


class Watching:
    """Looks for news of jobs, as often as it is asked to.

    Args:
        statuses: The statuses of all jobs.
        folder: The folder with the folders of the tenant's jobs.
        tenant: Whose jobs are watched.
        jobs: What the client knows of them, by their ids.

    Attributes:
        keys: The jobs.
    """

    def __init__(self, statuses: Statuses, folder: Path, tenant: str, jobs: Mapping[str, Known]) -> None:
        self.keys = {JobKey(tenant, job_id): known for job_id, known in jobs.items()}
        self._statuses = statuses
        self._files = {key: f"{folder}/{key.job_id}/{RECORDS_FILE}" for key in self.keys}
        self._ended: dict[JobKey, KnownStatus] = {}
        # The sizes of logs of which the last look saw that they have no whole record more, and whether they were ended.
        self._no_news: dict[str, tuple[int, bool]] = {}

    def look(self) -> News:
        """The news."""
        # The statuses before the logs: of a job that has ended, the log is complete then.
        statuses = self._read_statuses()
        sizes = {key: _size(self._files[key]) for key, status in statuses.items() if not status.waits}
        logs = [
            GrownLog(file, known.offset, size, ended)
            for key, known in self.keys.items()
            if (size := sizes.get(key, 0)) > known.offset
            and self._no_news.get(file := self._files[key]) != (size, ended := statuses[key].ended)
        ]
        records = shared_out(logs)
        left_out = {log.file for log in logs if log.file not in records}
        urgent = bool(left_out) or any(log.ended or log.wanted >= LARGEST_SHARE for log in logs)
        news = []
        for key, known in self.keys.items():
            status = statuses.get(key)
            # Nothing in these lines needs to be escaped: of ids and tags it is known which characters they have.
            if not status:
                news.append(f'{{"job_id": "{key.job_id}", "unknown": true}}\n'.encode())
                urgent = True
                continue
            if status.ended and self._files[key] in left_out:
                # A client would take the log for complete that comes with the last status.
                continue
            content = records.get(self._files[key], b"")
            if not content and status.tag == known.seen:
                continue
            urgent = urgent or status.tag != known.seen
            told = "" if status.tag == known.seen else f', "status": {status.document}'
            line = (
                f'{{"job_id": "{key.job_id}", "seen": "{status.tag}", "offset": {known.offset},'
                f' "bytes": {len(content)}, "size": {sizes.get(key, 0)}{told}}}\n'
            )
            news += (line.encode(), content)
        if not news:
            self._no_news |= {log.file: (log.size, log.ended) for log in logs}
        return News(b"".join(news), urgent)

    def _read_statuses(self) -> dict[JobKey, KnownStatus]:
        read = self._statuses.read([key for key in self.keys if key not in self._ended])
        self._ended |= {key: status for key, status in read.items() if status.ended}
        return read | self._ended


def _size(file: str) -> int:
    try:
        return os.stat(file).st_size  # noqa: PTH116 - a Path for each of thousands of files takes longer than the look
    except FileNotFoundError:
        return 0
