"""Copies of a model: on a disk, and in a real object store."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from airflow.sdk import ObjectStoragePath

from airflow_training.exceptions import StorageError
from airflow_training.filesystems.folder import files_below
from airflow_training.operators import destination
from airflow_training.operators.destination import copy_model, find_mistakes

FILES = {"saved_model.pb": b"graph", "assets/words.txt": b"a b c", "variables/variables.index": b"index"}


@pytest.fixture
def model(training_connection: str) -> ObjectStoragePath:
    return write(ObjectStoragePath(f"training://{training_connection}@data/jobs/{uuid4()}/model/1"), FILES)


@pytest.fixture(params=["disk", "object store"])
def target(request: pytest.FixtureRequest, tmp_path: Path, training_connection: str) -> ObjectStoragePath:
    """Where the copy is wanted."""
    if request.param == "disk":
        return ObjectStoragePath(f"file://{tmp_path}/models/census")
    return ObjectStoragePath(f"training://{training_connection}@data/models/{uuid4()}/census")


def write(folder: ObjectStoragePath, files: dict[str, bytes]) -> ObjectStoragePath:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def read(folder: ObjectStoragePath) -> dict[str, bytes]:
    return {name: file.read_bytes() for name, file in files_below(folder).items()}


def test_a_model_is_copied_whole(model: ObjectStoragePath, target: ObjectStoragePath) -> None:
    copy_model(str(model), str(target), "job")

    assert read(target) == FILES


def test_what_was_there_is_replaced(model: ObjectStoragePath, target: ObjectStoragePath) -> None:
    write(target, {"saved_model.pb": b"old", "assets/old.txt": b"old"})

    copy_model(str(model), str(target), "job")

    assert read(target) == FILES


def test_a_copy_that_breaks_off_is_no_model_and_the_next_one_is_whole(
    model: ObjectStoragePath, target: ObjectStoragePath, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(file: ObjectStoragePath, to: ObjectStoragePath) -> None:
        if file.name == "saved_model.pb":
            raise OSError("No space left on device")
        to.write_bytes(file.read_bytes())

    with monkeypatch.context() as fault:
        fault.setattr(destination, "_copy", full)
        with pytest.raises(StorageError, match=r"could not be copied to .*: No space left on device\."):
            copy_model(str(model), str(target), "job")
    assert "saved_model.pb" not in read(target)

    copy_model(str(model), str(target), "job")

    assert read(target) == FILES
    assert [path.name for path in target.parent.iterdir()] == [target.name], "nothing else is left"


def test_on_a_disk_the_old_model_stays_until_the_new_one_is_whole(
    model: ObjectStoragePath, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = write(ObjectStoragePath(f"file://{tmp_path}/models/census"), {"saved_model.pb": b"old"})

    def full(*_: Any) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(destination, "_copy", full)
    with pytest.raises(StorageError):
        copy_model(str(model), str(target), "job")

    assert read(target) == {"saved_model.pb": b"old"}


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ("models/census", "must be an absolute path or a URI"),
        ("nonsense://models/census", "model_destination cannot be 'nonsense://models/census': "),
        ("training://no_such@data/models", "There is no connection 'no_such'"),
    ],
)
def test_a_place_that_cannot_be_is_told_before_anything_is_trained(where: str, said: str) -> None:
    (mistake,) = find_mistakes(where)

    assert said in mistake


def test_a_place_that_can_be_is_no_mistake() -> None:
    assert find_mistakes("/models/census") == find_mistakes(None) == []
