"""The file with the curves of a job: append-only, and bounded for a job of any length.

```
{"name": "loss", "unit": "epoch"}              a curve; the first has the number 0
[0,1,1795594084.81,1,0.42,812]                 a point: curve, index in the curve (from 1), time, step, value, offset
```

With too many points, every second one of each curve is dropped, except its first and last: old values thin out
with each pass, the newest are complete.

The offset is the end of the source that was read when the point was written. A reader that resumes at an earlier offset
drops the points after it, and writes them again.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from io import FileIO
from pathlib import Path
from typing import NamedTuple

from airflow_training.service.atomic_files import open_untrusted, write_all

MAX_CURVES = 200
"""Curves per job; later ones are ignored."""

MAX_POINTS = 200_000
"""Points per job, of all curves together."""

# Seconds between attempts to downsample while the disk is full: each reads the whole file.
_RETRY_INTERVAL = 10.0


class NewPoint(NamedTuple):
    """A point to write; a `step` of None stands for the index of the point."""

    name: str
    unit: str
    step: float | None
    value: float


class CurveFile:
    """Writes the file. A full disk costs points, and has no other effect.

    Args:
        path: The file, which may exist.
        offset: The offset at which the source is read again: points after it are removed. None keeps all.
        max_points: The number of points above which the file is downsampled.
    """

    def __init__(self, path: Path, offset: int | None = None, max_points: int = MAX_POINTS) -> None:
        self._path = path
        self._max_points = max_points
        self._numbers: dict[tuple[str, str], int] = {}
        self._counts: list[int] = []
        self._points = 0
        self._downsample_after = 0.0
        # Opened with the first point: most jobs report no metrics, and have no such file.
        self._file: FileIO | None = None
        with suppress(OSError):
            self._load(offset)

    @property
    def names(self) -> set[str]:
        """The names of the curves."""
        return {name for name, _ in self._numbers}

    def add(self, points: Iterable[NewPoint], at: float, offset: int) -> None:
        """Append points in order, all with the same time and offset."""
        before = (dict(self._numbers), list(self._counts), self._points)
        lines = b"".join(self._lines(points, at, offset))
        try:
            self._append(lines)
        except OSError:
            self._numbers, self._counts, self._points = before
        if self._points > self._max_points and time.monotonic() > self._downsample_after:
            self._downsample()

    def close(self) -> None:
        """Close the file."""
        if self._file:
            self._file.close()

    def _append(self, lines: bytes) -> None:
        self._file = self._file or self._open()
        size = self._file.tell()
        try:
            write_all(self._file, lines)
        except OSError:
            with suppress(OSError):
                self._file.truncate(size)
                self._file.seek(size)
            raise

    def _open(self) -> FileIO:
        file = FileIO(open_untrusted(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT), "a")
        file.seek(0, os.SEEK_END)
        return file

    def _lines(self, points: Iterable[NewPoint], at: float, offset: int) -> Iterator[bytes]:
        for point in points:
            curve = (point.name, point.unit)
            number = self._numbers.get(curve)
            if number is None:
                if len(self._numbers) == MAX_CURVES:
                    continue
                number = self._numbers[curve] = len(self._numbers)
                self._counts.append(0)
                yield json.dumps({"name": point.name, "unit": point.unit}).encode() + b"\n"
            self._counts[number] += 1
            self._points += 1
            index = self._counts[number]
            step = index if point.step is None else point.step
            yield b"[%d,%d,%r,%r,%r,%d]\n" % (number, index, at, float(step), float(point.value), offset)

    def _load(self, offset: int | None) -> None:
        """Load the existing file; cut it at the first point after the offset or the first damaged line."""
        end = 0
        with (
            os.fdopen(open_untrusted(self._path, os.O_RDONLY), "rb") as file,
            suppress(ValueError, LookupError, TypeError),
        ):
            for line in file:
                self._load_line(line, offset)
                end += len(line)
        os.truncate(self._path, end)

    def _load_line(self, line: bytes, offset: int | None) -> None:
        """Load a line.

        Raises:
            ValueError, LookupError, TypeError: The file is to be cut before this line.
        """
        if not line.endswith(b"\n"):
            raise ValueError
        if line.startswith(b"["):
            if offset is not None and _offset(line) > offset:
                raise ValueError
            number, index = _number_and_index(line)
            self._counts[number] = index
            self._points += 1
        else:
            curve = json.loads(line)
            self._numbers[curve["name"], curve["unit"]] = len(self._numbers)
            self._counts.append(0)

    def _downsample(self) -> None:
        stride = 1
        target_size = max(self._max_points // 2, 2 * len(self._counts))
        while sum(count // stride + 2 for count in self._counts) > target_size:
            stride *= 2
        part = self._path.with_name(f"{self._path.name}.part")
        points = 0
        try:
            part.unlink(missing_ok=True)
            with os.fdopen(open_untrusted(self._path, os.O_RDONLY), "rb") as source, part.open("xb") as target:
                for line in source:
                    if line.startswith(b"["):
                        try:
                            number, index = _number_and_index(line)
                        except ValueError:  # the job has written to the file
                            continue
                        if number >= len(self._counts) or ((index - 1) % stride and index != self._counts[number]):
                            continue
                        points += 1
                    target.write(line)
                target.flush()
                os.fsync(target.fileno())
            part.replace(self._path)
        except OSError:
            part.unlink(missing_ok=True)
            self._downsample_after = time.monotonic() + _RETRY_INTERVAL
            return
        self.close()
        self._file, self._points = None, points


def _number_and_index(line: bytes) -> tuple[int, int]:
    number, index, _ = line[1:].split(b",", 2)
    return int(number), int(index)


def _offset(line: bytes) -> int:
    return int(line[line.rindex(b",") + 1 : -2])
