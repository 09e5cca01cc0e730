"""Downsampling of curves."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from airflow_training.service.insights.downsampling import downsample

NUMBERS = st.lists(st.floats(allow_nan=False, allow_infinity=False), max_size=300)


@given(NUMBERS, st.integers(2, 40))
def test_a_curve_keeps_its_ends_its_order_and_its_extremes(values: list[float], most: int) -> None:
    points = list(enumerate(values))
    kept = downsample(points, most, [lambda point: point[1], lambda point: -point[1]])
    assert len(kept) <= most
    assert kept == sorted(set(kept)), "in order, and no duplicates"
    assert set(kept) <= set(points)
    if len(points) <= most:
        assert kept == points
    else:
        assert (kept[0], kept[-1]) == (points[0], points[-1])
        assert most < 4 or {min(values), max(values)} <= {value for _, value in kept}
