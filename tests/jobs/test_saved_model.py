"""Which of the files of a job is its model."""

from __future__ import annotations

import pytest

from airflow_training.jobs.saved_model import find_saved_model


@pytest.mark.parametrize(
    ("files", "folder"),
    [
        ([], None),
        (["jobs/a-1/model.h5", "jobs/a-1/saved_model.pb.txt"], None),
        (["jobs/a-1/saved_model.pb"], "jobs/a-1"),
        (["jobs/a-1/model/saved_model.pb", "jobs/a-1/model/variables/variables.index"], "jobs/a-1/model"),
        (["jobs/a-1/model/9/saved_model.pb", "jobs/a-1/model/10/saved_model.pb"], "jobs/a-1/model/10"),
        (["jobs/a-1/out/deep/er/3/saved_model.pb"], "jobs/a-1/out/deep/er/3"),
        (["jobs/a-1/saved_model.pb", "jobs/a-1/checkpoints/best/saved_model.pb"], "jobs/a-1"),
        (["jobs/a-1/saved_model.pb", "jobs/a-1/export/1/saved_model.pb"], "jobs/a-1/export/1"),
    ],
)
def test_the_newest_version_folder_is_taken(files: list[str], folder: str | None) -> None:
    assert find_saved_model(files) == folder
