"""The log of a job: records with a time per line, and how they are read from the wire piece by piece."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime, timezone

NDJSON = "application/x-ndjson"


@dataclass(frozen=True)
class LogRecord:
    """One line of a job's log, and when it was written; None where the service does not tell."""

    line: str
    time: datetime | None = None

    def to_ndjson(self) -> bytes:
        """The record as one line of NDJSON, line feed included."""
        time = self.time.astimezone(timezone.utc).isoformat().replace("+00:00", "Z") if self.time else None
        return json.dumps({"time": time, "line": self.line}, ensure_ascii=False).encode(errors="replace") + b"\n"


class LogDecoder:
    """Turns the bytes of a log, in pieces of any size, into records.

    A line that has not ended yet is kept until its end arrives or `flush` is called: nobody sees half a line.

    Args:
        ndjson: Whether the bytes are NDJSON records; otherwise they are plain text.

    Example:
        >>> decoder = LogDecoder(ndjson=False)
        >>> [record.line for record in decoder.feed(b"one\\ntw")]
        ['one']
        >>> [record.line for record in decoder.feed(b"o\\n")]
        ['two']
    """

    def __init__(self, *, ndjson: bool) -> None:
        self._decode = _from_ndjson if ndjson else _from_text
        self._partial = b""

    def feed(self, chunk: bytes) -> list[LogRecord]:
        """Take the next bytes and return the lines that are complete now."""
        *lines, self._partial = (self._partial + chunk).split(b"\n")
        return [self._decode(line) for line in lines]

    @property
    def pending(self) -> int:
        """Number of bytes of the line that has not ended yet."""
        return len(self._partial)

    def flush(self) -> list[LogRecord]:
        """Return what is left at the end of the log."""
        left, self._partial = self._partial, b""
        return [self._decode(left)] if left else []


def _from_text(line: bytes) -> LogRecord:
    return LogRecord(line.decode(errors="replace").rstrip("\r"))


def _from_ndjson(line: bytes) -> LogRecord:
    try:
        record = json.loads(line)
        time = record["time"]
        return LogRecord(record["line"], datetime.fromisoformat(time.replace("Z", "+00:00")) if time else None)
    except (ValueError, KeyError, TypeError, AttributeError):
        # A record that cannot be read is shown as it is: a log must never end a job.
        return _from_text(line)
