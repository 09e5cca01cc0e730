"""Ids that are the same again, and different where they must be."""

from __future__ import annotations

from itertools import product

from airflow_training.api.naming import job_folder, job_id


def test_every_part_makes_another_job() -> None:
    parts = list(product(["a", "a/b"], ["r"], ["b/c", "c"], [-1, 0], [1, 2]))

    assert len({job_id(*part) for part in parts}) == len(parts)
    assert [job_id(*part) for part in parts] == [job_id(*part) for part in parts]


def test_a_job_id_does_not_change_between_releases() -> None:
    assert job_id("dag", "run", "task", -1, 1) == "47384ff9-6bf9-5c45-9c85-c47319d3df99"


def test_a_folder_is_named_by_name_and_id() -> None:
    assert job_folder("census", "0b5c") == "jobs/census-0b5c"
