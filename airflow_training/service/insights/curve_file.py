"""The file that keeps the curves of a job: appended to, and bounded however long the job goes on.

```
{"name": "loss", "unit": "epoch"}              a curve; the first has the number 0
[0,1,1795594084.81,1,0.42,812]                 a point: curve, how many-eth value of it, time, step, value, mark
```

Where the points become too many, every second one of each curve goes: of its older values then every second is there,
after the next time every fourth, and so on, its first and its last always. The newest are all there.

A mark says how far the source was read when the point was told. Where the source is read again from an earlier mark on,
what was told after that one is taken away first, and comes again.
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

from airflow_training.service.durable_files import append, open_checked

MOST_CURVES = 200
"""Curves that are kept of a job; those that are told later are not."""

MOST_POINTS = 200_000
"""Points that are kept of a job, of all its curves together."""

# Where the disk is full, thinning is tried again after so many seconds: it reads the whole file.
_PAUSE = 10.0


class NewPoint(NamedTuple):
    """A point that is to be kept; `step` is None where it is how many-eth value it is."""

    name: str
    unit: str
    step: float | None
    value: float


class CurveFile:
    """Writes the file. A disk that is full costs points, and does no other harm.

    Args:
        path: The file, which is gone on with where it is there.
        mark: Up to where the source was read; points that were told after that are taken away. None keeps all.
        most: Points after which they are thinned.
    """

    def __init__(self, path: Path, mark: int | None = None, most: int = MOST_POINTS) -> None:
        self._path = path
        self._most = most
        self._numbers: dict[tuple[str, str], int] = {}
        self._told: list[int] = []
        self._points = 0
        self._thin_after = 0.0
        # Most jobs tell no metrics, and have no such file.
        self._file: FileIO | None = None
        with suppress(OSError):
            self._load(mark)

    @property
    def names(self) -> set[str]:
        """The names of the curves."""
        return {name for name, _ in self._numbers}

    def add(self, points: Iterable[NewPoint], at: float, mark: int) -> None:
        """Keep points, in the order in which they were told at some time."""
        before = (dict(self._numbers), list(self._told), self._points)
        lines = b"".join(self._lines(points, at, mark))
        try:
            self._append(lines)
        except OSError:
            self._numbers, self._told, self._points = before
        if self._points > self._most and time.monotonic() > self._thin_after:
            self._thin()

    def close(self) -> None:
        """End the file."""
        if self._file:
            self._file.close()

    def _append(self, lines: bytes) -> None:
        self._file = self._file or self._open()
        size = self._file.tell()
        try:
            append(self._file, lines)
        except OSError:
            with suppress(OSError):
                self._file.truncate(size)
                self._file.seek(size)
            raise

    def _open(self) -> FileIO:
        file = FileIO(open_checked(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT), "a")
        file.seek(0, os.SEEK_END)
        return file

    def _lines(self, points: Iterable[NewPoint], at: float, mark: int) -> Iterator[bytes]:
        for point in points:
            curve = (point.name, point.unit)
            number = self._numbers.get(curve)
            if number is None:
                if len(self._numbers) == MOST_CURVES:
                    continue
                number = self._numbers[curve] = len(self._numbers)
                self._told.append(0)
                yield json.dumps({"name": point.name, "unit": point.unit}).encode() + b"\n"
            self._told[number] += 1
            self._points += 1
            told = self._told[number]
            step = told if point.step is None else point.step
            yield b"[%d,%d,%r,%r,%r,%d]\n" % (number, told, at, float(step), float(point.value), mark)

    def _load(self, mark: int | None) -> None:
        """Learn what is there; what is behind the mark goes, and what was not written whole."""
        end = 0
        with (
            os.fdopen(open_checked(self._path, os.O_RDONLY), "rb") as file,
            suppress(ValueError, LookupError, TypeError),
        ):
            for line in file:
                self._note(line, mark)
                end += len(line)
        os.truncate(self._path, end)

    def _note(self, line: bytes, mark: int | None) -> None:
        """Take note of a line.

        Raises:
            ValueError, LookupError, TypeError: It cannot be gone on from there.
        """
        if not line.endswith(b"\n"):
            raise ValueError
        if line.startswith(b"["):
            if mark is not None and _mark(line) > mark:
                raise ValueError
            number, told = _number_and_told(line)
            self._told[number] = told
            self._points += 1
        else:
            curve = json.loads(line)
            self._numbers[curve["name"], curve["unit"]] = len(self._numbers)
            self._told.append(0)

    def _thin(self) -> None:
        stride = 1
        while sum(told // stride + 2 for told in self._told) > max(self._most // 2, 2 * len(self._told)):
            stride *= 2
        thinned = self._path.with_name(f"{self._path.name}.part")
        points = 0
        try:
            thinned.unlink(missing_ok=True)
            with os.fdopen(open_checked(self._path, os.O_RDONLY), "rb") as source, thinned.open("xb") as target:
                for line in source:
                    if line.startswith(b"["):
                        try:
                            number, told = _number_and_told(line)
                        except ValueError:  # the job has written into it
                            continue
                        if number >= len(self._told) or ((told - 1) % stride and told != self._told[number]):
                            continue
                        points += 1
                    target.write(line)
                target.flush()
                os.fsync(target.fileno())
            thinned.replace(self._path)
        except OSError:
            thinned.unlink(missing_ok=True)
            self._thin_after = time.monotonic() + _PAUSE
            return
        self.close()
        self._file, self._points = None, points


def _number_and_told(line: bytes) -> tuple[int, int]:
    number, told, _ = line[1:].split(b",", 2)
    return int(number), int(told)


def _mark(line: bytes) -> int:
    return int(line[line.rindex(b",") + 1 : -2])
