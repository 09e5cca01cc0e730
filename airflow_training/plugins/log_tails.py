"""The end of the log of each job that a page shows, kept in memory and extended on each request."""

from __future__ import annotations

from collections import deque
from typing import Any

from airflow.sdk._shared.secrets_masker import redact
from cachetools import LRUCache

from airflow_training.api.log import LogRecord
from airflow_training.client.client import TrainingClient
from airflow_training.client.follow.log_tail import LogTail
from airflow_training.per_loop import PerLoop
from airflow_training.plugins.display import utf8_safe
from airflow_training.plugins.gateway import ServiceRef

MAX_LINES = 2000
"""The lines that are kept of a log, and that a reply holds."""

_MAX_CHARACTERS = 1024 * 1024
_MAX_TAILS = 50
# A long log is read from the last but one multiple of this many bytes.
_STRIDE = 1024 * 1024
# Chunks that are read for one request.
_MAX_CHUNKS = 40


class Tail:
    """The end of a log.

    Attributes:
        id: The offset at which reading began; empty before. Line numbers are the same in all tails that began there,
            also in those of other processes.
        ended: Whether the log is complete.
        unknown: Whether the service did not know the job at the last request.
        skipped: Whether the log has lines before the first numbered one.
    """

    def __init__(self) -> None:
        self.id = ""
        self.ended = False
        self.unknown = False
        self.skipped = False
        self._tail = LogTail(0)
        self._lines: deque[LogRecord] = deque()
        self._characters = 0
        self._next = 1

    async def read_on(self, client: TrainingClient, job_id: str) -> None:
        """Read what the job has written since."""
        if self.ended:
            return
        # Before the log: when the job has ended, its log is complete.
        status = await client.find(job_id)
        self.unknown = status is None
        ended = status is not None and status.state.ended
        for _ in range(_MAX_CHUNKS):
            chunk = await client.log(job_id, self._tail.read_until)
            if not self.id:
                begin = max(0, (chunk.size or 0) // _STRIDE - 1) * _STRIDE
                self.id = str(begin)
                if begin:
                    self._tail = LogTail(begin, within_a_line=True)
                    self.skipped = True
                    continue
            more = len(chunk.content) >= client.LOG_CHUNK
            last = ended and not more
            self._add(self._tail.feed(chunk.content, ndjson=chunk.ndjson, size=chunk.size, more=more, last=last))
            if not more:
                self.ended = ended
                break

    def reply(self, after: int) -> dict[str, Any]:
        """The kept lines after a line number."""
        first = self._next - len(self._lines)
        records = [_show(number, record) for number, record in enumerate(self._lines, first) if number > after]
        # Another process of the api-server may have read further.
        following = max(self._next, after + 1)
        return {"records": records, "next": following, "skipped": after < first - 1 or (not after and self.skipped)}

    def _add(self, records: list[LogRecord]) -> None:
        self._lines += records
        self._next += len(records)
        self._characters += sum(len(record.line) for record in records)
        while len(self._lines) > MAX_LINES or self._characters > _MAX_CHARACTERS:
            self._characters -= len(self._lines.popleft().line)


def _show(number: int, record: LogRecord) -> dict[str, Any]:
    # As Airflow masks every line of a task log.
    line = redact(utf8_safe(record.line))
    return {"n": number, "time": record.time.isoformat() if record.time else None, "line": line}


class Tails:
    """The tails of one event loop, the most recently used ones."""

    def __init__(self) -> None:
        self._kept: LRUCache[tuple[ServiceRef, str], Tail] = LRUCache(_MAX_TAILS)

    def get(self, service: ServiceRef, job_id: str) -> Tail:
        """The tail of a job's log."""
        key = (service, job_id)
        if key not in self._kept:
            self._kept[key] = Tail()
        return self._kept[key]


tails = PerLoop(Tails)
"""The tails of the running event loop."""
