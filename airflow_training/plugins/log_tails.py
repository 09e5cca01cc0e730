"""The end of each job's log that somebody looks at, read on and kept in memory."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Any

from airflow.sdk._shared.secrets_masker import redact
from cachetools import LRUCache

from airflow_training.api.log import LogRecord
from airflow_training.client.client import TrainingClient
from airflow_training.client.follow.log_tail import LogTail
from airflow_training.per_loop import PerLoop
from airflow_training.plugins.clients import Service
from airflow_training.plugins.texts import sendable

MOST_LINES = 2000
"""The lines that are kept of a job, and that a reply holds."""

_MOST_CHARACTERS = 1024 * 1024
_MOST_TAILS = 50
# The last but one multiple of so many bytes is where the reading of a long log begins; pieces read for one answer.
_BEGIN = 1024 * 1024
_PIECES = 40


@dataclass(frozen=True)
class _Line:
    number: int
    record: LogRecord

    def to_dict(self) -> dict[str, Any]:
        time = self.record.time
        # As Airflow does with every line of a task log.
        line = redact(sendable(self.record.line))
        return {"n": self.number, "time": time.isoformat() if time else None, "line": line}


class Tail:
    """The end of a log.

    Attributes:
        id: Names the byte at which the reading began; empty before. Lines have the same numbers in all readings, also
            those of other processes, that began there.
        ended: Whether no line comes any more.
        unknown: Whether the service did not know the job when it was asked last.
        skipped: Whether the log has lines before those that are numbered.
    """

    def __init__(self) -> None:
        self.id = ""
        self.ended = False
        self.unknown = False
        self.skipped = False
        self._tail = LogTail(0)
        self._lines: deque[_Line] = deque()
        self._characters = 0
        self._next = 1

    async def read_on(self, client: TrainingClient, job_id: str) -> None:
        """Read what is new, as far as it goes."""
        if self.ended:
            return
        # Before the log: when the job has ended, its log is complete.
        status = await client.find(job_id)
        self.unknown = status is None
        ended = status is not None and status.state.ended
        for _ in range(_PIECES):
            chunk = await client.log(job_id, self._tail.read_until)
            if not self.id:
                begin = max(0, (chunk.size or 0) // _BEGIN - 1) * _BEGIN
                self.id = str(begin)
                if begin:
                    self._tail = LogTail(begin, within_a_line=True)
                    self.skipped = True
                    continue
            more = len(chunk.content) >= client.LOG_CHUNK
            last = ended and not more
            self._add(self._tail.take(chunk.content, ndjson=chunk.ndjson, size=chunk.size, more=more, last=last))
            if not more:
                self.ended = ended
                break

    def reply(self, after: int) -> dict[str, Any]:
        """The lines after a number, the last of them."""
        records = [line.to_dict() for line in self._lines if line.number > after]
        first = self._lines[0].number if self._lines else 1
        # One of several processes may not have read as far as another.
        following = max(self._next, after + 1)
        return {"records": records, "next": following, "skipped": after < first - 1 or (not after and self.skipped)}

    def _add(self, records: list[LogRecord]) -> None:
        for record in records:
            self._lines.append(_Line(self._next, record))
            self._next += 1
            self._characters += len(record.line)
        while len(self._lines) > MOST_LINES or self._characters > _MOST_CHARACTERS:
            self._characters -= len(self._lines.popleft().record.line)


class Tails:
    """The tails of one event loop, those that somebody asked for last."""

    def __init__(self) -> None:
        self._kept: LRUCache[tuple[Service, str], Tail] = LRUCache(_MOST_TAILS)

    def get(self, service: Service, job_id: str) -> Tail:
        """The tail of a job's log."""
        key = (service, job_id)
        if key not in self._kept:
            self._kept[key] = Tail()
        return self._kept[key]


tails = PerLoop(Tails)
"""Those of the event loop that runs."""
