"""The curves that a job's log tells, kept as the log is written.

They are taken from what the job writes, and not from the records afterwards: to read a log of a gigabyte when somebody
asks would take seconds, and what is beyond the limit of the log would be missing.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from airflow_training.api.log import LONGEST_LINE, LogDecoder
from airflow_training.api.metrics import MARKS, epoch_of_line, is_finite, told_by_line
from airflow_training.service.insights.curve_file import CurveFile, NewPoint

CURVES_FILE = "metrics.ndjson"

_MARKS = tuple(mark.encode() for mark in MARKS)


class LogCurves:
    """Looks for metrics in what a job writes, and keeps them.

    Args:
        folder: The state folder of the job.
        before: The end of what the job wrote before, of which nothing is kept a second time.
        mark: How much that was in all, where the job may write something again; see `CurveFile`.
    """

    def __init__(self, folder: Path, before: bytes, mark: int | None) -> None:
        self._file = CurveFile(folder / CURVES_FILE, mark)
        self._epoch: int | None = None
        self._partial = b""
        self.told_by(before)

    def told_by(self, output: bytes) -> list[NewPoint]:
        """Take what the job wrote, wherever its lines end, and return the points that it tells, mostly none."""
        lines, ended, rest = (self._partial + output).rpartition(b"\n")
        # Of a progress bar only the last state counts, however long the line is.
        self._partial = rest[-LONGEST_LINE:]
        if not ended or not _tells(lines):
            return []
        told: list[NewPoint] = []
        for line in filter(_tells, lines.split(b"\n")):
            (record,) = LogDecoder(ndjson=False).feed(line[-LONGEST_LINE:] + b"\n")
            told += self._told_by_line(record.line)
        return told

    def keep(self, points: list[NewPoint], at: float, mark: int) -> None:
        """Keep points.

        Args:
            points: What was told.
            at: When, in seconds since 1970.
            mark: How much the job has written in all.
        """
        self._file.add(points, at, mark)

    def close(self) -> None:
        """End the file."""
        self._file.close()

    def _told_by_line(self, line: str) -> Iterator[NewPoint]:
        if (epoch := epoch_of_line(line)) is not None:
            self._epoch = epoch
            return
        metrics, unit, step = told_by_line(line)
        if metrics and "s/step" in line and self._epoch is not None:
            # The next such line is that of a test after the training, unless an epoch begins before it.
            unit, step, self._epoch = "epoch", self._epoch, None
        for name, value in metrics.items():
            if is_finite(value):
                yield NewPoint(name, unit, step, value)


def _tells(lines: bytes) -> bool:
    return _MARKS[0] in lines or _MARKS[1] in lines or _MARKS[2] in lines
