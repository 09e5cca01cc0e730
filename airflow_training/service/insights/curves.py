"""Reads the curves of a job from its curve files, downsampled for a response."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from operator import itemgetter, lt
from pathlib import Path
from typing import Any, NamedTuple

from pydantic_core import from_json

from airflow_training.api.insights import Curve, JobMetrics, Point, Unit
from airflow_training.service.atomic_files import read_untrusted
from airflow_training.service.insights.downsampling import downsample

# The fields of a point in the file, see curve_file.py.
_CURVE, _INDEX, _TIME, _STEP, _VALUE = range(5)

# Bytes read of a file. Ours are smaller, but a job may have written to it.
_MAX_BYTES = 64 * 1024 * 1024
# Points in a response, of all curves together: a response of megabytes would block all other requests.
_MAX_POINTS = 50_000

_Points = list[list[Any]]


class _StoredCurve(NamedTuple):
    name: str
    unit: Unit
    points: _Points
    total: int


def read_curves(files: Iterable[Path], points: int) -> JobMetrics:
    """Read the curves in files; of curves with the same name and unit, the first file's.

    A step that is not greater than the previous one marks a restart, such as another attempt of the job: earlier
    values from that step on are dropped, as TensorBoard does. Values without a step are dropped if the metric has
    values with steps: mostly they come from an evaluation after the training.

    Args:
        files: The curve files; a missing file has no curves.
        points: The number of points of a curve at most.
    """
    found: dict[tuple[str, Unit], _StoredCurve] = {}
    for file in files:
        for curve in _read(file):
            found.setdefault((curve.name, curve.unit), curve)
    points = min(points, max(2, _MAX_POINTS // max(1, len(found))))
    with_steps = {name for name, unit in found if unit != "value"}
    curves = []
    for (name, unit), curve in sorted(found.items()):
        # A job may have written to its files.
        with suppress(ValueError, LookupError, TypeError):
            if unit != "value" or name not in with_steps:
                curves.append(Curve(name=name, unit=unit, points=_downsampled(curve.points, points), total=curve.total))
    return JobMetrics.model_construct(curves=curves)


def _downsampled(points: _Points, limit: int) -> list[Point]:
    extremes: list[Callable[[list[Any]], float]] = [itemgetter(_VALUE), lambda point: -point[_VALUE]]
    return [Point(*point[_TIME : _VALUE + 1]) for point in downsample(_without_restarts(points), limit, extremes)]


def _without_restarts(points: _Points) -> _Points:
    steps = list(map(itemgetter(_STEP), points))
    if all(map(lt, steps, steps[1:])):
        # The usual case, and many times as fast as the loop.
        return points
    kept: _Points = []
    for point in points:
        while kept and kept[-1][_STEP] >= point[_STEP]:
            kept.pop()
        kept.append(point)
    return kept


def _read(file: Path) -> list[_StoredCurve]:
    try:
        content = read_untrusted(file, _MAX_BYTES)
    except OSError:
        return []
    # The last line may be incomplete.
    lines = content.rpartition(b"\n")[0].replace(b"\n", b",")
    try:
        return _curves(from_json(b"[" + lines + b"]", allow_inf_nan=False))
    except (ValueError, LookupError, TypeError):
        # Damaged by a power failure: the writer cuts off the damaged end when it resumes.
        return []


def _curves(entries: list[Any]) -> list[_StoredCurve]:
    names = [(entry["name"], entry["unit"]) for entry in entries if isinstance(entry, dict)]
    points: list[_Points] = [[] for _ in names]
    for entry in entries:
        if isinstance(entry, list):
            points[entry[_CURVE]].append(entry)
    return [_StoredCurve(*name, own, own[-1][_INDEX]) for name, own in zip(names, points, strict=True) if own]
