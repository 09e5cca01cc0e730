"""The end of a job's log: what has been read of it, and the lines that this makes."""

from __future__ import annotations

from airflow_training.api.log import LogDecoder, LogRecord

MOST_AT_ONCE = 4 * 1024 * 1024
"""Bytes of log that are delivered where a job writes faster than it is read; of what is beyond, the end only."""

_END = 256 * 1024
# A record on the wire may be this much longer than its line; lines that are cut count at least this part of them.
_FRAMING = 8


class LogTail:
    """A job's log, read on from where the last piece ended.

    Args:
        offset: The byte to begin at.
        within_a_line: Whether that may be in the middle of a line, whose rest is then left out.

    Attributes:
        offset: All bytes before this one were delivered as whole lines.
        read_until: The byte with which the next piece is to begin.
    """

    def __init__(self, offset: int, *, within_a_line: bool = False) -> None:
        self.offset = offset
        self.read_until = offset
        self._decoder: LogDecoder | None = None
        self._within_a_line = within_a_line
        self._delivered = 0

    def take(self, content: bytes, *, ndjson: bool, size: int | None, more: bool, last: bool) -> list[LogRecord]:
        """Take the next piece and return the lines that are complete now.

        Args:
            content: The bytes.
            ndjson: Whether they are NDJSON records; otherwise they are plain text.
            size: Bytes of the whole log; None where the service does not tell.
            more: Whether the service has more already.
            last: Whether nothing comes any more: a line without an end is delivered too.
        """
        self.read_until += len(content)
        records = self._decode(content, ndjson=ndjson, last=last)
        self._delivered += max(sum(len(record.line) for record in records), len(content) // _FRAMING)
        if not more:
            self._delivered = 0
        elif self._delivered >= MOST_AT_ONCE:
            self._delivered = 0
            records += self._leave_out(size)
        return records

    def _decode(self, content: bytes, *, ndjson: bool, last: bool) -> list[LogRecord]:
        if content and not self._decoder:
            self._decoder = LogDecoder(ndjson=ndjson)
        if not self._decoder:
            return []
        records = self._decoder.feed(content)
        if last:
            records += self._decoder.flush()
        if self._within_a_line:
            if not records:
                return []
            self._within_a_line = False
            del records[0]
        self.offset = self.read_until - self._decoder.pending
        return records

    def _leave_out(self, size: int | None) -> list[LogRecord]:
        """Go on near the end of a log that is longer than what is delivered at once, and say so."""
        # One byte earlier, so that what comes before the first line feed never is a whole line.
        begin = (size or 0) - _END - 1
        if begin <= self.read_until or not self._decoder:
            return []
        records = self._decoder.flush()
        said = f"[about {begin - self.read_until:,} bytes of the log are left out here: there is too much at once]"
        self.read_until = begin
        self._within_a_line = True
        return [*records, LogRecord(said, records[-1].time if records else None)]
