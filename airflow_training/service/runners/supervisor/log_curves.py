"""Finds the metrics in a job's log, and keeps their curves, as the log is written.

To read a log of a gigabyte on request would take seconds, and the metrics beyond the limit of the log would be missing.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from airflow_training.api.log import LONGEST_LINE, LogDecoder
from airflow_training.api.metrics import METRIC_HINTS, epoch_of_line, is_finite, logged_metrics
from airflow_training.service.insights.curve_file import CurveFile, NewPoint

CURVES_FILE = "metrics.ndjson"

_HINTS = tuple(hint.encode() for hint in METRIC_HINTS)


class LogCurves:
    """Finds and keeps the metrics in the output of a job.

    Args:
        folder: The run folder of the job.
        before: The end of the output so far, whose metrics are kept already.
        offset: Bytes of the output so far, if some of it may come again; see `CurveFile`.
    """

    def __init__(self, folder: Path, before: bytes, offset: int | None) -> None:
        self._file = CurveFile(folder / CURVES_FILE, offset)
        self._epoch: int | None = None
        self._partial = b""
        self.points_in(before)

    def points_in(self, output: bytes) -> list[NewPoint]:
        """Return the points in the next output, usually none; it may begin and end within a line."""
        lines, ended, rest = (self._partial + output).rpartition(b"\n")
        # Only the last state of a progress bar counts, however long the line is.
        self._partial = rest[-LONGEST_LINE:]
        if not ended or not _has_hint(lines):
            return []
        points: list[NewPoint] = []
        for line in filter(_has_hint, lines.split(b"\n")):
            (record,) = LogDecoder(ndjson=False).feed(line[-LONGEST_LINE:] + b"\n")
            points += self._points_of_line(record.line)
        return points

    def keep(self, points: list[NewPoint], at: float, offset: int) -> None:
        """Keep points.

        Args:
            points: The points.
            at: Their time, in seconds since 1970.
            offset: Bytes of the output up to them.
        """
        self._file.add(points, at, offset)

    def close(self) -> None:
        """End the file."""
        self._file.close()

    def _points_of_line(self, line: str) -> Iterator[NewPoint]:
        if (epoch := epoch_of_line(line)) is not None:
            self._epoch = epoch
            return
        metrics, unit, step = logged_metrics(line)
        if metrics and "s/step" in line and self._epoch is not None:
            # The next such line is of a test after the training, unless an epoch begins before it.
            unit, step, self._epoch = "epoch", self._epoch, None
        for name, value in metrics.items():
            if is_finite(value):
                yield NewPoint(name, unit, step, value)


def _has_hint(lines: bytes) -> bool:
    return _HINTS[0] in lines or _HINTS[1] in lines or _HINTS[2] in lines
