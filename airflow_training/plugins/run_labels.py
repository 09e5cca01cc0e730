"""Short names by which trainings are told apart in a chart."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence

from airflow_training.plugins.job_refs import TaskRef

# What Airflow makes of the time of a run: `manual__2026-11-26T09:30:12.123456+00:00_Xk2a`.
_TIMED = re.compile(r"[a-z_]+?__(\d{4}-\d\d-\d\d)T(\d\d:\d\d)(:\d\d)?")


def labels(refs: Sequence[TaskRef]) -> dict[TaskRef, str]:
    """Name trainings: by the shortest of some ways in which no two have the same name.

    >>> first, second = (TaskRef("d", f"manual__2026-11-26T09:3{n}:00+00:00", "train") for n in range(2))
    >>> list(labels([first, second]).values())
    ['2026-11-26 09:30', '2026-11-26 09:31']
    """
    ways: list[Callable[[TaskRef], str]] = [
        lambda ref: _time(ref.run_id, seconds=False),
        lambda ref: _time(ref.run_id, seconds=True),
        lambda ref: ref.run_id,
        lambda ref: f"{ref.dag_id}, {ref.run_id}",
    ]
    tasks = len({ref.task_id for ref in refs}) > 1
    named: dict[TaskRef, str] = {}
    for way in ways:
        named = {ref: way(ref) + _within_run(ref, tasks=tasks) for ref in refs}
        if max(Counter(named.values()).values(), default=1) == 1:
            break
    return named


def _time(run_id: str, *, seconds: bool) -> str:
    timed = _TIMED.match(run_id)
    return f"{timed[1]} {timed[2]}" + ((timed[3] or "") if seconds else "") if timed else run_id


def _within_run(ref: TaskRef, *, tasks: bool) -> str:
    return (f" {ref.task_id}" if tasks else "") + (f" [{ref.map_index}]" if ref.map_index >= 0 else "")
