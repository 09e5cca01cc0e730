"""Fewer points for a curve that looks the same."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from airflow_training.service.insights.downsampling import thin

NUMBERS = st.lists(st.floats(allow_nan=False, allow_infinity=False), max_size=300)


@given(NUMBERS, st.integers(2, 40))
def test_a_curve_keeps_its_ends_its_order_and_its_extremes(values: list[float], most: int) -> None:
    points = list(enumerate(values))
    thinned = thin(points, most, lambda point: point[1])
    assert len(thinned) <= most
    assert thinned == sorted(set(thinned)), "in order, and none twice"
    assert set(thinned) <= set(points)
    if len(points) <= most:
        assert thinned == points
    else:
        assert (thinned[0], thinned[-1]) == (points[0], points[-1])
        assert most < 4 or {min(values), max(values)} <= {value for _, value in thinned}
