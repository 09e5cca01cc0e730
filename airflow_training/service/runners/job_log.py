"""The log of a job as it is kept: the job's bytes, and beside them a record with a time for each line."""

from __future__ import annotations

import os
from datetime import datetime, timezone
from pathlib import Path

from airflow_training.jobs.log import LogRecord

TEXT_FILE = "log.txt"
RECORDS_FILE = "log.ndjson"

# A longer line becomes several records: a job that never ends a line must not fill the memory.
_LONGEST_RECORD = 64 * 1024


class JobLog:
    """Writes both files of a log; what was written can be read by others at once.

    Args:
        folder: Where the files are; they are appended to.
    """

    def __init__(self, folder: Path) -> None:
        self._text = (folder / TEXT_FILE).open("ab")
        self._records = (folder / RECORDS_FILE).open("ab")
        self._partial = b""
        self._line_continues = False

    def write(self, output: bytes) -> None:
        """Take what the job wrote, wherever its lines begin and end."""
        self._text.write(output)
        self._text.flush()
        time = datetime.now(timezone.utc)
        *lines, self._partial = (self._partial + output).split(b"\n")
        records = [record for line in lines for record in self._whole(line, time)]
        while len(self._partial) >= _LONGEST_RECORD:
            end = _character_boundary(self._partial, _LONGEST_RECORD)
            records.append(_record(self._partial[:end], time))
            self._partial = self._partial[end:]
            self._line_continues = True
        self._records.write(b"".join(records))
        self._records.flush()

    def say(self, sentence: str) -> None:
        """Write a line of the service's own, on a line of its own."""
        if self._partial or self._line_continues:
            self.write(b"\n")
        self.write(f"[service] {sentence}\n".encode())

    def close(self) -> None:
        """End the log, and a last line that did not end; both files are safe on the disk afterwards."""
        if self._partial:
            self._records.write(_record(self._partial, datetime.now(timezone.utc)))
        for file in (self._text, self._records):
            file.flush()
            os.fsync(file.fileno())
            file.close()

    def _whole(self, line: bytes, time: datetime) -> list[bytes]:
        continues, self._line_continues = self._line_continues, False
        records = []
        while len(line) > _LONGEST_RECORD:
            end = _character_boundary(line, _LONGEST_RECORD)
            records.append(_record(line[:end], time))
            line = line[end:]
        if line or not (continues or records):
            records.append(_record(line, time))
        return records


def _record(line: bytes, time: datetime) -> bytes:
    return LogRecord(line.decode(errors="replace").rstrip("\r"), time).to_ndjson()


def _character_boundary(line: bytes, end: int) -> int:
    """Step back to where a UTF-8 character begins, which is at most three bytes."""
    for boundary in range(end, end - 4, -1):
        if boundary == len(line) or line[boundary] & 0xC0 != 0x80:
            return boundary
    return end
