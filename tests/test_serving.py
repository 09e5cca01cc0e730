"""The folder that TensorFlow Serving watches."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from airflow_training.exceptions import StorageError
from airflow_training.serving import publish, versions, withdraw


@pytest.fixture
def trained(tmp_path: Path) -> str:
    """The location of a model."""
    folder = tmp_path / "trained"
    (folder / "variables").mkdir(parents=True)
    (folder / "saved_model.pb").write_text("graph")
    (folder / "variables" / "variables.index").write_text("index")
    return str(folder)


def test_each_model_is_the_next_version_and_the_last_ones_are_kept(trained: str, tmp_path: Path) -> None:
    model = tmp_path / "models" / "census"

    assert [publish(trained, model, keep=3) for _ in range(5)] == [1, 2, 3, 4, 5]

    assert versions(model) == [3, 4, 5]
    assert sorted(path.name for path in model.iterdir()) == [".last-version", "3", "4", "5"], "nothing else is left"
    assert (model / "5" / "variables" / "variables.index").read_text() == "index"


def test_two_tasks_that_publish_at_once_publish_two_versions(trained: str, tmp_path: Path) -> None:
    model = tmp_path / "models"

    with ThreadPoolExecutor(8) as tasks:
        published = list(tasks.map(lambda _: publish(trained, model, keep=3), range(40)))

    assert sorted(published) == list(range(1, 41))
    assert versions(model) == [38, 39, 40]


def test_versions_are_ordered_as_numbers(trained: str, tmp_path: Path) -> None:
    for name in ("9", "10", "notes"):
        (tmp_path / name).mkdir()

    assert publish(trained, tmp_path, keep=2) == 11
    assert versions(tmp_path) == [10, 11]
    assert (tmp_path / "notes").is_dir()


def test_a_model_that_cannot_be_read_changes_nothing(trained: str, tmp_path: Path) -> None:
    model = tmp_path / "models"
    publish(trained, model, keep=1)

    with pytest.raises(StorageError, match="could not be copied"):
        publish(str(tmp_path / "no_such"), model, keep=1)

    assert versions(model) == [1]


def test_a_version_is_withdrawn_unless_it_is_the_only_one(trained: str, tmp_path: Path) -> None:
    model = tmp_path / "models"
    publish(trained, model, keep=3)
    publish(trained, model, keep=3)

    assert withdraw(model, 2) == 1
    assert withdraw(model, 2) == 1, "it is gone already"
    assert withdraw(model, 1) is None
    assert versions(model) == [1]
    assert publish(trained, model, keep=3) == 3, "a number is not given again: another run may still withdraw it"
