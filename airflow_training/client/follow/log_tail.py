"""The tail of a job's log: how far it is read, and its new lines."""

from __future__ import annotations

from airflow_training.api.log import LogDecoder, LogRecord

MAX_BACKLOG = 4 * 1024 * 1024
"""Bytes of log delivered without a pause if a job writes faster than it is read; then all but the end is skipped."""

_END = 256 * 1024
# The record of a line on the wire may be this many times as long; shortened lines count at least this part of it.
_FRAMING = 8


class LogTail:
    """A job's log, read on from the end of the last piece.

    Args:
        offset: The byte to begin at.
        within_a_line: Whether that may be in the middle of a line, whose rest is then skipped.

    Attributes:
        offset: All bytes before this one are delivered as whole lines.
        read_until: The byte at which the next piece begins.
    """

    def __init__(self, offset: int, *, within_a_line: bool = False) -> None:
        self.offset = offset
        self.read_until = offset
        self._decoder: LogDecoder | None = None
        self._within_a_line = within_a_line
        self._delivered = 0

    def feed(self, content: bytes, *, ndjson: bool, size: int | None, more: bool, last: bool) -> list[LogRecord]:
        """Add the next piece and return the lines that are complete now.

        Args:
            content: The bytes.
            ndjson: Whether they are NDJSON records, or else plain text.
            size: Bytes of the whole log; None if the service does not return it.
            more: Whether the service has more already.
            last: Whether the log ends here: a line without an end is returned too.
        """
        self.read_until += len(content)
        records = self._decode(content, ndjson=ndjson, last=last)
        self._delivered += max(sum(len(record.line) for record in records), len(content) // _FRAMING)
        if not more:
            self._delivered = 0
        elif self._delivered >= MAX_BACKLOG:
            self._delivered = 0
            records += self._skip(size)
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

    def _skip(self, size: int | None) -> list[LogRecord]:
        """Continue near the end of the log, with a line about the skipped part."""
        # One byte earlier, so that the bytes before the first line feed are never a whole line.
        begin = (size or 0) - _END - 1
        if begin <= self.read_until or not self._decoder:
            return []
        records = self._decoder.flush()
        note = f"[about {begin - self.read_until:,} bytes of the log are skipped here: too much output at once]"
        self.read_until = begin
        self._within_a_line = True
        return [*records, LogRecord(note, records[-1].time if records else None)]
