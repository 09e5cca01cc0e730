"""The log of a job in its run folder: the bytes that the job wrote, and records with a time for each line.

A job that outlives its supervisor has a checkpoint too: how many frames of its output are in the files, and their sizes
then. The next supervisor truncates what was written after the checkpoint, and reads those frames again. If the machine
lost power, and with it what the checkpoint counts, all frames of the attempt are read again.
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
from airflow_training.service.atomic_files import write_all
from airflow_training.service.runners.supervisor.log_curves import LogCurves
from airflow_training.service.runners.supervisor.secret_masks import Masks

TEXT_FILE = "log.txt"
RECORDS_FILE = "log.ndjson"
_CHECKPOINT_FILE = "log.checkpoint"
# A fixed size: one write replaces the checkpoint.
_CHECKPOINT_SIZE = 512

# A longer line becomes several records: a job that never ends a line must not fill the memory.
_LONGEST_RECORD = 64 * 1024

_LONGEST_TORN = 1024 * 1024

# Bytes of a line that are shown before it ends: the last ones, since those change.
_LONGEST_STATE = 500

# Lines written at the same moment get different times: Airflow's log page sorts lines by the millisecond, and drops one
# that is equal to its neighbor. A flood of lines gets ahead by a second at most.
_APART = timedelta(milliseconds=1)
_APART_IN_A_FLOOD = timedelta(microseconds=1)
_AHEAD = timedelta(seconds=1)


class JobLog:
    """Writes both files of a log; readers see at once what was written.

    Args:
        folder: The folder of the files; they are appended to.
        limit: Bytes that both files may have together, apart from a few lines of the service.
        resumable: Whether to write a checkpoint, and to resume from the one that is there.
        masks: Masks the job's secrets. Frames were masked on the node.

    Attributes:
        dropped: Bytes that the job wrote beyond the limit.
    """

    def __init__(self, folder: Path, limit: int, *, resumable: bool = False, masks: Masks | None = None) -> None:
        self._masks = masks or Masks()
        self._text = (folder / TEXT_FILE).open("ab", buffering=0)
        self._records = (folder / RECORDS_FILE).open("ab", buffering=0)
        self._new_records: list[bytes] = []
        self._limit = limit
        self.dropped = 0
        # A line that a killed writer had not ended continues.
        self._partial = _unended(folder / TEXT_FILE)
        if torn := _unended(folder / RECORDS_FILE):
            self._records.truncate(self._records.tell() - len(torn))
        self._line_continues = False
        self._at: datetime | None = None
        self._last_time = datetime.min.replace(tzinfo=timezone.utc)
        self._frames = 0
        # The sizes of the files before the attempt's first frame.
        self._base = (0, 0)
        self._checkpoint = os.open(folder / _CHECKPOINT_FILE, os.O_RDWR | os.O_CREAT, 0o600) if resumable else None
        if resumable:
            self._resume(read_checkpoint(folder))
        end = _end_of(folder / TEXT_FILE, _LONGEST_RECORD)
        self._curves = LogCurves(folder, end, self._written if resumable else None)

    @property
    def size(self) -> int:
        """Bytes of the log as text."""
        return self._text.tell()

    def write(self, output: bytes, at: datetime | None = None, frame: int | None = None) -> None:
        """Write output of the job, which may begin and end within a line.

        Args:
            output: The output.
            at: When it was written, by the clock of the machine that runs the job; now if not given.
            frame: The number of its frame.
        """
        self._advance(at, frame)
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
            self.emit(f"The log has reached its limit of {self._limit} bytes: further output of the job is lost.")
        self._write_checkpoint()

    def show_line(self, at: datetime | None = None, frame: int | None = None) -> None:
        """Record the last state of the line that has not ended, so that readers see it before the line ends.

        Args:
            at: When it had that state, by the clock of the machine that runs the job; now if not given.
            frame: The number of the frame that requests it.
        """
        self._advance(at, frame)
        state = self._partial.rstrip(b"\r").rpartition(b"\r")[2]
        has_room = not self.dropped and self._text.tell() + self._records.tell() < self._limit
        if has_room and state.strip():
            if len(state) > _LONGEST_STATE:
                state = "… ".encode() + _from_character(state[-_LONGEST_STATE:])
            # A full disk costs this state; the line itself is written when it ends.
            with contextlib.suppress(OSError), self._all_or_nothing():
                self._write_record(state, unended=True)
                self._flush_records()
        self._write_checkpoint()

    def emit(self, text: str) -> None:
        """Write lines of the service, unless the disk is full.

        They get the time of the job's last output if that was given: the order counts, and another clock may be ahead.
        """
        self._take_rest()
        with contextlib.suppress(OSError), self._all_or_nothing():
            if self._partial or self._line_continues:
                self._write(b"\n")
                # A line that is lost has not ended.
                if not self.dropped:
                    self._look_for_metrics(b"\n")
            self._write("".join(f"[service] {line}\n" for line in self._masks.mask(text).splitlines()).encode())
        self._write_checkpoint()

    def begin_frames(self) -> None:
        """Another attempt begins: its output comes in frames, from the first on."""
        self._frames = 0
        self._base = (self._text.tell(), self._records.tell())
        self._write_checkpoint()
        for file in (self._text, self._records, self._checkpoint):
            if file is not None:
                os.fsync(file)

    def _take_rest(self) -> None:
        if rest := self._masks.rest():
            self._keep(rest)

    def _advance(self, at: datetime | None, frame: int | None) -> None:
        self._at = at
        if frame is not None:
            self._frames = max(self._frames, frame + 1)

    @property
    def _written(self) -> int:
        """Bytes written in all, lost ones included."""
        return self._text.tell() + self.dropped

    def _look_for_metrics(self, output: bytes) -> None:
        if points := self._curves.points_in(output):
            at = self._at or datetime.now(timezone.utc)
            self._curves.keep(points, at.timestamp(), self._written)

    def _write_checkpoint(self) -> None:
        if self._checkpoint is None:
            return
        checkpoint = {
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
        # If the disk is full, the last checkpoint applies.
        with contextlib.suppress(OSError):
            os.pwrite(self._checkpoint, json.dumps(checkpoint).ljust(_CHECKPOINT_SIZE).encode(), 0)

    def _resume(self, checkpoint: dict[str, Any] | None) -> None:
        sizes = (self._text.tell(), self._records.tell())
        if not checkpoint or sizes[0] < checkpoint["text"] or sizes[1] < checkpoint["records"]:
            self._base = tuple(map(min, sizes, checkpoint["base"] if checkpoint else (0, 0)))
            self._cut(*self._base)
            self._partial = b""
            self._write_checkpoint()
            return
        self._base = tuple(checkpoint["base"])
        self._cut(checkpoint["text"], checkpoint["records"])
        with Path(self._text.name).open("rb") as content:
            content.seek(checkpoint["text"] - checkpoint["partial"])
            self._partial = content.read()
        self._frames = checkpoint["frames"]
        self._line_continues = checkpoint["continues"]
        self.dropped = checkpoint["dropped"]
        self._at = checkpoint["at"] and datetime.fromisoformat(checkpoint["at"])
        self._last_time = datetime.fromisoformat(checkpoint["last_time"])

    @contextlib.contextmanager
    def _all_or_nothing(self) -> Iterator[None]:
        """Restore the files and the line that has not ended if the disk is full."""
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
        write_all(self._text, output)
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
        if self._checkpoint is not None:
            os.close(self._checkpoint)

    def _shown(self, line: bytes) -> bytes:
        """The last state of a line that overwrites itself.

        Hours of a progress bar are then one record, and take no memory.
        """
        # If a part of the line is in a record already, readers need the carriage return.
        return line if self._line_continues else line[line.rstrip(b"\r").rfind(b"\r") + 1 :]

    def _flush_records(self) -> None:
        records, self._new_records = b"".join(self._new_records), []
        write_all(self._records, records)

    def _write_pieces(self, line: bytes) -> bytes:
        """Write what does not fit into one record, and return the rest of the line."""
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


def read_checkpoint(folder: Path) -> dict[str, Any] | None:
    """The checkpoint of a log, with `frames`, the number of frames in it; None if there is none."""
    # It cannot be read if it was just created, or if the machine lost power.
    with contextlib.suppress(FileNotFoundError, ValueError):
        checkpoint: dict[str, Any] = json.loads((folder / _CHECKPOINT_FILE).read_bytes())
        return checkpoint
    return None


def _unended(file: Path) -> bytes:
    """What follows the last line feed of a file, of its last megabyte."""
    return _end_of(file, _LONGEST_TORN).rpartition(b"\n")[2]


def _end_of(file: Path, most: int) -> bytes:
    with file.open("rb") as content:
        content.seek(max(file.stat().st_size - most, 0))
        return content.read()


def _from_character(text: bytes) -> bytes:
    """Drop the rest of a UTF-8 character that was cut: three bytes at most."""
    begin = next((index for index in range(min(4, len(text))) if text[index] & 0xC0 != 0x80), 0)
    return text[begin:]


def _character_boundary(line: bytes, end: int) -> int:
    """Step back to the beginning of a UTF-8 character: three bytes at most."""
    for boundary in range(end, end - 4, -1):
        if boundary == len(line) or line[boundary] & 0xC0 != 0x80:
            return boundary
    return end
