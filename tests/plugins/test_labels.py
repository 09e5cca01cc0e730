"""Names by which trainings are told apart in a chart."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from airflow_training.plugins.job_refs import TaskRef
from airflow_training.plugins.run_labels import labels

RUNS = st.sampled_from(["manual__2026-11-26T09:30:12+00:00", "manual__2026-11-26T09:30:40+00:00", "mine", "mine [1]"])
REFS = st.builds(TaskRef, st.sampled_from("ab"), RUNS, st.sampled_from(["train", "t"]), st.integers(-1, 2))


@given(st.lists(REFS, unique=True, max_size=12))
def test_each_has_a_name(refs: list[TaskRef]) -> None:
    assert set(labels(refs)) == set(refs)


def test_runs_of_one_minute_are_told_apart_by_their_seconds() -> None:
    refs = [TaskRef("d", f"manual__2026-11-26T09:30:{second}+00:00", "train") for second in (12, 40)]

    assert list(labels(refs).values()) == ["2026-11-26 09:30:12", "2026-11-26 09:30:40"]


def test_mapped_tasks_are_told_apart_by_their_index() -> None:
    refs = [TaskRef("d", "manual__2026-11-26T09:30:12+00:00", "train", index) for index in range(2)]

    assert list(labels(refs).values()) == ["2026-11-26 09:30 [0]", "2026-11-26 09:30 [1]"]


def test_runs_with_names_of_their_own_keep_them() -> None:
    assert list(labels([TaskRef("d", "backfill of May", "train")]).values()) == ["backfill of May"]
