"""The log of a job: records with a time per line, and their incremental decoder."""

from __future__ import annotations

import json
import re
from datetime import datetime, timezone
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

NDJSON = "application/x-ndjson"

LONGEST_LINE = 16 * 1024
"""The most bytes of a line: Airflow takes a second for a line of a megabyte, and loses it under load."""

_LONGEST_RECORD = 1024 * 1024

# ECMA-48: control sequences (colors, cursor), and strings that set a terminal's title.
_TERMINAL_SEQUENCE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[ -/]*[0-~])")
_CONTROL = dict.fromkeys((*range(9), *range(10, 32), *range(127, 160)), "\N{REPLACEMENT CHARACTER}")


# Here and in the classes of updates: thousands of objects a second that Python's garbage collector need not look at. It
# would look at all of Airflow's as well, for a quarter of a second each time, while nothing else in the triggerer runs.
class LogRecord(Struct, frozen=True, gc=False):
    """A line of a job's log, or a piece of a long one.

    Attributes:
        line: The text without its line feed.
        time: When it was written; None if unknown.
        continues: Whether the next record continues the line.
        unended: Whether this is an intermediate state of a line that has not ended; a later record has the whole line.
    """

    line: str
    time: datetime | None = None
    continues: bool = False
    unended: bool = False

    def to_ndjson(self) -> bytes:
        """The record as a line of NDJSON, with its line feed."""
        time = self.time.astimezone(timezone.utc).isoformat().replace("+00:00", "Z") if self.time else None
        flags = {"continues": self.continues, "unended": self.unended}
        record = {"time": time, "line": self.line} | {name: True for name, is_set in flags.items() if is_set}
        return json.dumps(record, ensure_ascii=False).encode(errors="replace") + b"\n"


class LogDecoder:
    r"""Decodes the bytes of a log, in pieces of any size, into lines for a task log, in bounded memory.

    Of a progress bar, which overwrites itself with `\r`, only the last state is returned. Colors are removed, binary
    data is replaced. A line of more than `LONGEST_LINE` bytes is truncated with a note. A line without an end is kept
    until its end arrives or `flush` is called; its intermediate states, if recorded by the service, are returned with
    an ellipsis.

    Args:
        ndjson: Whether the bytes are NDJSON records, or else plain text.

    Attributes:
        pending: Bytes of lines that have not ended yet.

    Example:
        >>> decoder = LogDecoder(ndjson=False)
        >>> [record.line for record in decoder.feed(b"one\ntw")]
        ['one']
        >>> [record.line for record in decoder.feed(b"o\n10 %\r100 %\n")]
        ['two', '100 %']
    """

    def __init__(self, *, ndjson: bool) -> None:
        self.pending = 0
        self._ndjson = ndjson
        self._record = b""
        self._line = _Line()

    def feed(self, chunk: bytes) -> list[LogRecord]:
        """Add the next bytes and return the lines that are complete now."""
        *ended, rest = chunk.split(b"\n")
        complete = []
        for piece in ended:
            self.pending += len(piece) + 1
            line = self._end_of_record(piece) if self._ndjson else self._end_of_line(piece)
            if line is not None:
                complete.append(line)
                # The line may have begun in earlier records, at which following must then be resumed.
                if not (line.unended and self._line.begun):
                    self.pending = 0
        self.pending += len(rest)
        if self._ndjson and len(self._record) + len(rest) <= _LONGEST_RECORD:
            self._record += rest
        else:
            # Plain text, or something longer than any record.
            self._line.add(self._record + rest)
            self._record = b""
        return complete

    def flush(self) -> list[LogRecord]:
        """Return the rest at the end of the log."""
        if not self.pending:
            return []
        self.pending = 0
        if self._record:
            self._line.add(self._record)
            self._record = b""
        return [self._line.end()]

    def _end_of_line(self, piece: bytes) -> LogRecord:
        self._line.add(piece)
        return self._line.end()

    def _end_of_record(self, piece: bytes) -> LogRecord | None:
        content, self._record = self._record + piece, b""
        try:
            record = _read(content)
            text, written = record["line"].encode(errors="replace"), record["time"]
            time = datetime.fromisoformat(written.replace("Z", "+00:00")) if written else None
            continues, unended = record.get("continues") is True, record.get("unended") is True
        except (ValueError, KeyError, TypeError, AttributeError):
            # An invalid record is returned as it is: a log must never fail a job.
            return self._end_of_line(content)
        if unended:
            state = _Line()
            state.add(text, time)
            shown = state.end()
            return replace(shown, line=f"{shown.line} …", unended=True)
        self._line.add(text, time)
        return None if continues else self._line.end()


def _read(record: bytes) -> Any:
    # Supervisors and nodes of Ray use this module too, but read no records.
    from pydantic_core import from_json  # noqa: PLC0415

    try:
        return from_json(record)
    except ValueError:
        # pydantic's parser takes a seventh of the time, but rejects lone surrogates.
        return json.loads(record)


class _Line:
    """A line that is being received: the beginning of its last state."""

    def __init__(self) -> None:
        self._kept = bytearray()
        self._cut = 0
        self._overwritten = False
        self._time: datetime | None = None

    @property
    def begun(self) -> bool:
        """Whether it has content."""
        return bool(self._kept) or self._overwritten

    def add(self, piece: bytes, time: datetime | None = None) -> None:
        self._time = self._time or time
        # Text after a carriage return overwrites the line; at the end of a line the carriage return has no effect.
        written = piece.rstrip(b"\r")
        if written:
            *states, last = written.split(b"\r")
            if states or self._overwritten:
                self._kept.clear()
                self._cut = 0
            begin = last[: LONGEST_LINE - len(self._kept)]
            self._kept += begin
            self._cut += len(last) - len(begin)
        if piece:
            self._overwritten = len(written) < len(piece)

    def end(self) -> LogRecord:
        text, time = self._text(), self._time
        self._kept, self._cut, self._overwritten, self._time = bytearray(), 0, False, None
        return LogRecord(text, time)

    def _text(self) -> str:
        # The cut may be within a character, whose rest is dropped.
        text = self._kept.decode(errors="ignore" if self._cut else "replace")
        if not text.isprintable():
            text = _TERMINAL_SEQUENCE.sub("", text).translate(_CONTROL)
        return f"{text} … [{self._cut:,} more bytes of this line omitted]" if self._cut else text
