"""Which of the files of a job is its model."""

from __future__ import annotations

import pytest

from airflow_training.api.saved_model import describe_choice, find_saved_model, find_saved_models


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
        (["jobs/a-1/checkpoints/100/saved_model.pb", "jobs/a-1/model/1/saved_model.pb"], "jobs/a-1/model/1"),
        (["jobs/a-1/ckpt/100/saved_model.pb", "jobs/a-1/out/model/1/saved_model.pb"], "jobs/a-1/out/model/1"),
        (["jobs/a-1/Checkpoints/100/saved_model.pb", "jobs/a-1/saved_model.pb"], "jobs/a-1"),
        (["jobs/a-1/teacher/7/saved_model.pb", "jobs/a-1/model/1/saved_model.pb"], "jobs/a-1/model/1"),
        (["jobs/a-1/model/1/saved_model.pb", "jobs/a-1/a/b/9/saved_model.pb"], "jobs/a-1/model/1"),
        (["jobs/a-1/model/saved_model.pb", "jobs/a-1/model/0/saved_model.pb"], "jobs/a-1/model/0"),
        (["jobs/checkpoint-1/m/2/saved_model.pb", "jobs/checkpoint-1/m/10/saved_model.pb"], "jobs/checkpoint-1/m/10"),
        (["jobs/a-1/checkpoints/9/saved_model.pb"], "jobs/a-1/checkpoints/9"),
    ],
)
def test_the_newest_version_folder_is_taken(files: list[str], folder: str | None) -> None:
    assert find_saved_model(files) == folder


def test_each_of_several_models_is_named_in_its_newest_version() -> None:
    files = [
        "a/1/saved_model.pb",
        "model/9/saved_model.pb",
        "model/10/saved_model.pb",
        "checkpoints/300/saved_model.pb",
    ]

    assert find_saved_models(files) == ["model/10", "a/1", "checkpoints/300"]


def test_of_many_that_are_passed_over_the_first_are_named() -> None:
    said = describe_choice(
        find_saved_models(f"{name}/saved_model.pb" for name in ["model", *(f"ckpt-{n}" for n in range(9))])
    )

    assert said.startswith("Found several SavedModels, using model; ignored: ckpt-0, ")
    assert said.endswith("ckpt-4 and 4 more")
    assert describe_choice(["model"]) == ""
