"""The log of a job as it is kept: the job's bytes, and beside them a record with a time for each line.

Where a job outlives who writes its log, the next one goes on from a mark: so many frames of what the job wrote are in
the files when these have such sizes. What was written after the mark is cut off, and comes again. Where the machine
lost power, and with it what the mark tells of, all frames of the attempt come again.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from airflow_training.api.log import LogRecord
from airflow_training.service.durable_files import append
from airflow_training.service.runners.supervisor.log_curves import LogCurves
from airflow_training.service.runners.supervisor.secret_masks import Masks

TEXT_FILE = "log.txt"
RECORDS_FILE = "log.ndjson"
_MARK_FILE = "log.mark"
# Always as long, so that a mark takes the place of the one before in one write.
_MARK_SIZE = 512

# A longer line becomes several records: a job that never ends a line must not fill the memory.
_LONGEST_RECORD = 64 * 1024

_LONGEST_TORN = 1024 * 1024

# Bytes that are shown of a line before it ends: its end, where it is longer, since that is what changes.
_LONGEST_STATE = 500

# Lines written in the same moment are told apart by their times: Airflow's log page puts lines in order by the
# millisecond, and drops one that is equal to its neighbour. A flood of lines gets no further ahead than a second.
_APART = timedelta(milliseconds=1)
_APART_IN_A_FLOOD = timedelta(microseconds=1)
_AHEAD = timedelta(seconds=1)


class JobLog:
    """Writes both files of a log; what was written can be read by others at once.

    Args:
        folder: Where the files are; they are appended to.
        limit: The most bytes that both files take together, but for a few lines of the service's own.
        marked: Whether to keep a mark, and to go on from the one that is there.
        masks: The job's secrets. Output that comes in frames was masked on the node.

    Attributes:
        dropped: Bytes that the job wrote beyond the limit.
    """

    def __init__(self, folder: Path, limit: int, *, marked: bool = False, masks: Masks | None = None) -> None:
        self._masks = masks or Masks()
        self._text = (folder / TEXT_FILE).open("ab", buffering=0)
        self._records = (folder / RECORDS_FILE).open("ab", buffering=0)
        self._new_records: list[bytes] = []
        self._limit = limit
        self.dropped = 0
        # A line that an earlier writer, which was killed, had not ended goes on.
        self._partial = _unended(folder / TEXT_FILE)
        if torn := _unended(folder / RECORDS_FILE):
            self._records.truncate(self._records.tell() - len(torn))
        self._line_continues = False
        self._at: datetime | None = None
        self._last_time = datetime.min.replace(tzinfo=timezone.utc)
        self._frames = 0
        # The sizes of the files before the attempt's first frame.
        self._base = (0, 0)
        self._mark = os.open(folder / _MARK_FILE, os.O_RDWR | os.O_CREAT, 0o600) if marked else None
        if marked:
            self._go_on(read_mark(folder))
        end = _end_of(folder / TEXT_FILE, _LONGEST_RECORD)
        self._curves = LogCurves(folder, end, self._taken if marked else None)

    @property
    def size(self) -> int:
        """Bytes of the log as text."""
        return self._text.tell()

    def write(self, output: bytes, at: datetime | None = None, frame: int | None = None) -> None:
        """Take what the job wrote, wherever its lines begin and end.

        Args:
            output: What it wrote.
            at: When, by the clock of the machine where it did; now if not given.
            frame: The number of the frame that it came in.
        """
        self._note(at, frame)
        if frame is None and output and not (output := self._masks.take(output)):
            return
        self._keep(output)

    def _keep(self, output: bytes) -> None:
        limit_reached = False
        if self.dropped:
            self.dropped += len(output)
        elif self._text.tell() + self._records.tell() < self._limit:
            try:
                with self._all_or_nothing():
                    self._write(output)
            except OSError:  # the disk is full, and the job goes on
                self.dropped = len(output)
        else:
            self.dropped = len(output)
            limit_reached = True
        self._look_for_metrics(output)
        if limit_reached:
            self.say(f"The log has reached its limit of {self._limit} bytes: what the job writes from now on is lost.")
        self._set_mark()

    def show_line(self, at: datetime | None = None, frame: int | None = None) -> None:
        """Record the last state of the line that has not ended, so that readers see it before the line ends.

        Args:
            at: When it had that state, by the clock of the machine where the job runs; now if not given.
            frame: The number of the frame that asks for it.
        """
        self._note(at, frame)
        state = self._partial.rstrip(b"\r").rpartition(b"\r")[2]
        has_room = not self.dropped and self._text.tell() + self._records.tell() < self._limit
        if has_room and state.strip():
            if len(state) > _LONGEST_STATE:
                state = "… ".encode() + _from_character(state[-_LONGEST_STATE:])
            # A full disk costs this state; the line itself is written when it ends.
            with contextlib.suppress(OSError), self._all_or_nothing():
                self._write_record(state, unended=True)
                self._flush_records()
        self._set_mark()

    def say(self, text: str) -> None:
        """Write what the service has to say, on lines of its own, unless the disk is full.

        Where the job's time was given, theirs is that of what it wrote last: it is the order that counts, and another
        clock may be ahead.
        """
        self._take_rest()
        with contextlib.suppress(OSError), self._all_or_nothing():
            if self._partial or self._line_continues:
                self._write(b"\n")
                # Of what is lost, the line goes on.
                if not self.dropped:
                    self._look_for_metrics(b"\n")
            self._write("".join(f"[service] {line}\n" for line in self._masks.mask(text).splitlines()).encode())
        self._set_mark()

    def begin_frames(self) -> None:
        """What the job writes comes in frames from the first on, as of another attempt."""
        self._frames = 0
        self._base = (self._text.tell(), self._records.tell())
        self._set_mark()
        for file in (self._text, self._records, self._mark):
            if file is not None:
                os.fsync(file)

    def _take_rest(self) -> None:
        if rest := self._masks.rest():
            self._keep(rest)

    def _note(self, at: datetime | None, frame: int | None) -> None:
        self._at = at
        if frame is not None:
            self._frames = max(self._frames, frame + 1)

    @property
    def _taken(self) -> int:
        """Bytes that were taken in all, lost ones too."""
        return self._text.tell() + self.dropped

    def _look_for_metrics(self, output: bytes) -> None:
        if told := self._curves.told_by(output):
            at = self._at or datetime.now(timezone.utc)
            self._curves.keep(told, at.timestamp(), self._taken)

    def _set_mark(self) -> None:
        if self._mark is None:
            return
        mark = {
            "frames": self._frames,
            "base": self._base,
            "text": self._text.tell(),
            "records": self._records.tell(),
            "partial": len(self._partial),
            "continues": self._line_continues,
            "dropped": self.dropped,
            "at": self._at and self._at.isoformat(),
            "last_time": self._last_time.isoformat(),
        }
        # Where the disk is full, the mark before holds.
        with contextlib.suppress(OSError):
            os.pwrite(self._mark, json.dumps(mark).ljust(_MARK_SIZE).encode(), 0)

    def _go_on(self, mark: dict[str, Any] | None) -> None:
        sizes = (self._text.tell(), self._records.tell())
        if not mark or sizes[0] < mark["text"] or sizes[1] < mark["records"]:
            self._base = tuple(map(min, sizes, mark["base"] if mark else (0, 0)))
            self._cut(*self._base)
            self._partial = b""
            self._set_mark()
            return
        self._base = tuple(mark["base"])
        self._cut(mark["text"], mark["records"])
        with Path(self._text.name).open("rb") as content:
            content.seek(mark["text"] - mark["partial"])
            self._partial = content.read()
        self._frames = mark["frames"]
        self._line_continues = mark["continues"]
        self.dropped = mark["dropped"]
        self._at = mark["at"] and datetime.fromisoformat(mark["at"])
        self._last_time = datetime.fromisoformat(mark["last_time"])

    @contextlib.contextmanager
    def _all_or_nothing(self) -> Iterator[None]:
        """Have the files and the line that is not ended as they were, where the disk is full."""
        before = (self._text.tell(), self._records.tell())
        line = (self._partial, self._line_continues)
        try:
            yield
        except OSError:
            with contextlib.suppress(OSError):
                self._cut(*before)
            self._partial, self._line_continues = line
            self._new_records = []
            raise

    def _cut(self, text: int, records: int) -> None:
        for file, size in ((self._text, text), (self._records, records)):
            file.truncate(size)
            file.seek(0, os.SEEK_END)

    def _write(self, output: bytes) -> None:
        append(self._text, output)
        *lines, self._partial = (self._partial + output).split(b"\n")
        for line in lines:
            self._write_record(self._write_pieces(self._shown(line)).rstrip(b"\r"))
            self._line_continues = False
        self._partial = self._write_pieces(self._shown(self._partial))
        self._flush_records()

    def close(self) -> None:
        """End the log, and a last line that did not end; both files are safe on the disk afterwards."""
        self._take_rest()
        self._look_for_metrics(b"\n")
        self._curves.close()
        with contextlib.suppress(OSError):
            if self._partial or self._line_continues:
                self._write_record(self._partial)
                self._flush_records()
        for file in (self._text, self._records):
            with contextlib.suppress(OSError), file:
                os.fsync(file.fileno())
        if self._mark is not None:
            os.close(self._mark)

    def _shown(self, line: bytes) -> bytes:
        """What is left of a line that overwrites itself: its last state.

        Whatever a progress bar shows in hours is then one record of a line, and takes no memory.
        """
        # Of a line with a part in a record already, the reader has to see the carriage return.
        return line if self._line_continues else line[line.rstrip(b"\r").rfind(b"\r") + 1 :]

    def _flush_records(self) -> None:
        records, self._new_records = b"".join(self._new_records), []
        append(self._records, records)

    def _write_pieces(self, line: bytes) -> bytes:
        """Write what is too much for one record, and return the rest of the line."""
        while len(line) > _LONGEST_RECORD:
            end = _character_boundary(line, _LONGEST_RECORD)
            self._write_record(line[:end], continues=True)
            self._line_continues = True
            line = line[end:]
        return line

    def _write_record(self, line: bytes, *, continues: bool = False, unended: bool = False) -> None:
        record = LogRecord(line.decode(errors="replace"), self._next_time(), continues, unended)
        self._new_records.append(record.to_ndjson())

    def _next_time(self) -> datetime:
        now = self._at or datetime.now(timezone.utc)
        apart = _APART if self._last_time < now + _AHEAD else _APART_IN_A_FLOOD
        self._last_time = max(now, self._last_time + apart)
        return self._last_time


def read_mark(folder: Path) -> dict[str, Any] | None:
    """The mark of a log, whose `frames` say how much of what the job wrote is in it; None where there is none."""
    # None that can be read is there when it was just made, or when the machine lost power.
    with contextlib.suppress(FileNotFoundError, ValueError):
        mark: dict[str, Any] = json.loads((folder / _MARK_FILE).read_bytes())
        return mark
    return None


def _unended(file: Path) -> bytes:
    """What a file has behind its last line feed, of its last megabyte."""
    return _end_of(file, _LONGEST_TORN).rpartition(b"\n")[2]


def _end_of(file: Path, most: int) -> bytes:
    with file.open("rb") as content:
        content.seek(max(file.stat().st_size - most, 0))
        return content.read()


def _from_character(text: bytes) -> bytes:
    """Leave out what is left of a UTF-8 character that was cut, which is at most three bytes."""
    begin = next((index for index in range(min(4, len(text))) if text[index] & 0xC0 != 0x80), 0)
    return text[begin:]


def _character_boundary(line: bytes, end: int) -> int:
    """Step back to where a UTF-8 character begins, which is at most three bytes."""
    for boundary in range(end, end - 4, -1):
        if boundary == len(line) or line[boundary] & 0xC0 != 0x80:
            return boundary
    return end
