"""The curves of a job, read out of its curve files and thinned for a reply."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from operator import itemgetter, lt
from pathlib import Path
from typing import Any, NamedTuple

from pydantic_core import from_json

from airflow_training.api.curves import Curve, JobMetrics, Point, Unit
from airflow_training.service.durable_files import read_start
from airflow_training.service.insights.downsampling import thin

# A point as it is in the file, see curve_file.py.
_CURVE, _TOLD, _TIME, _STEP, _VALUE = range(5)

# Bytes of a file that a job may have written into; no file of ours is larger.
_LARGEST = 64 * 1024 * 1024
# Points of all curves of a reply.
_MOST_POINTS = 50_000

_Points = list[list[Any]]


class _Kept(NamedTuple):
    """A curve as it is kept."""

    name: str
    unit: Unit
    points: _Points
    told: int


def read_curves(files: Iterable[Path], points: int) -> JobMetrics:
    """Read the curves that files keep; of those with the same name and unit, that of the first file.

    A step that comes again, or an earlier one, is another beginning, as of a further attempt of the job: what had been
    told from that step on is left out, as TensorBoard does it. A value without a step, of a metric that has steps
    otherwise, is no point of its curve: mostly it is what a test after the training found.

    Args:
        files: The curve files; one that is not there has no curves.
        points: How many points a curve may have in the end.
    """
    found: dict[tuple[str, Unit], _Kept] = {}
    for file in files:
        for curve in _read(file):
            found.setdefault((curve.name, curve.unit), curve)
    # Many curves have fewer points each: a reply of megabytes would hold up all others.
    points = min(points, max(2, _MOST_POINTS // max(1, len(found))))
    with_steps = {name for name, unit in found if unit != "value"}
    curves = []
    for (name, unit), curve in sorted(found.items()):
        # A job may have written into its files.
        with suppress(ValueError, LookupError, TypeError):
            if unit != "value" or name not in with_steps:
                curves.append(Curve(name=name, unit=unit, points=_thinned(curve.points, points), told=curve.told))
    return JobMetrics.model_construct(curves=curves)


def _thinned(points: _Points, most: int) -> list[Point]:
    value = itemgetter(_VALUE)
    return [Point(*point[_TIME : _VALUE + 1]) for point in thin(_from_last_beginning(points), most, value)]


def _from_last_beginning(points: _Points) -> _Points:
    steps = list(map(itemgetter(_STEP), points))
    if all(map(lt, steps, steps[1:])):
        # As nearly always, and many times as fast as to look at each.
        return points
    kept: _Points = []
    for point in points:
        while kept and kept[-1][_STEP] >= point[_STEP]:
            kept.pop()
        kept.append(point)
    return kept


def _read(file: Path) -> list[_Kept]:
    try:
        content = read_start(file, _LARGEST)
    except OSError:
        return []
    # Its last line may just be written.
    lines = content.rpartition(b"\n")[0].replace(b"\n", b",")
    try:
        return _curves(from_json(b"[" + lines + b"]", allow_inf_nan=False))
    except (ValueError, LookupError, TypeError):
        # The machine lost power while it was written: its writer cuts off what cannot be read.
        return []


def _curves(entries: list[Any]) -> list[_Kept]:
    names = [(entry["name"], entry["unit"]) for entry in entries if isinstance(entry, dict)]
    points: list[_Points] = [[] for _ in names]
    for entry in entries:
        if isinstance(entry, list):
            points[entry[_CURVE]].append(entry)
    return [_Kept(*name, told, told[-1][_TOLD]) for name, told in zip(names, points, strict=True) if told]
