"""Copies of a model: on a disk, and in a real object store."""

from __future__ import annotations

from pathlib import Path
from threading import Event
from typing import Any
from uuid import uuid4

import pytest
from airflow.sdk import ObjectStoragePath

from airflow_training.api.parameters import SAVED_MODEL
from airflow_training.exceptions import StorageError
from airflow_training.operators import destination as module
from airflow_training.operators.destination import RECORD, copy_model, destination_errors
from airflow_training.operators.files import files_below

FILES = {"saved_model.pb": b"graph", "assets/words.txt": b"a b c", "variables/variables.index": b"index"}


@pytest.fixture
def model(training_connection: str) -> ObjectStoragePath:
    return write(ObjectStoragePath(f"training://{training_connection}@data/jobs/{uuid4()}/model/1"), FILES)


@pytest.fixture(params=["disk", "object store"])
def target(request: pytest.FixtureRequest, tmp_path: Path, training_connection: str) -> ObjectStoragePath:
    """The destination of the copy."""
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


def test_a_model_is_copied_completely(model: ObjectStoragePath, target: ObjectStoragePath) -> None:
    assert copy_model(str(model), str(target), "job", Event()) == str(target)

    assert read(target) == FILES


@pytest.fixture
def other(model: ObjectStoragePath) -> ObjectStoragePath:
    """A folder that is no SavedModel."""
    return write(model.parent / "other", {"weights.pt": b"weights", "config/a.json": b"{}"})


def test_a_folder_that_is_no_savedmodel_is_copied_and_replaced_by_the_next_copy(
    other: ObjectStoragePath, target: ObjectStoragePath
) -> None:
    assert copy_model(str(other), str(target), "job", Event()) == str(target)
    record = read(target).pop(RECORD)
    assert read(target) == {"weights.pt": b"weights", "config/a.json": b"{}", RECORD: record}
    assert destination_errors(str(target), "other") == []

    (other / "config" / "a.json").unlink()
    write(other, {"weights.pt": b"better", "b.json": b"[]"})
    copy_model(str(other), str(target), "job", Event())

    assert {name: content for name, content in read(target).items() if name != RECORD} == {
        "weights.pt": b"better",
        "b.json": b"[]",
    }


def test_a_file_is_copied_into_the_folder(other: ObjectStoragePath, target: ObjectStoragePath) -> None:
    location = copy_model(str(other / "weights.pt"), f"{target}/", "job", Event())

    assert location == f"{target}/weights.pt"
    assert ObjectStoragePath(location).read_bytes() == b"weights"
    (other / "weights.pt").write_bytes(b"better")
    copy_model(str(other / "weights.pt"), str(target), "job", Event())
    assert ObjectStoragePath(location).read_bytes() == b"better"


def test_a_copy_of_another_kind_replaces_the_one_before(
    model: ObjectStoragePath, other: ObjectStoragePath, target: ObjectStoragePath
) -> None:
    for source in (other, model, other / "weights.pt", model):
        copy_model(str(source), str(target), "job", Event())

    assert read(target) == FILES


def test_a_file_of_which_a_part_was_read_does_not_appear(other: ObjectStoragePath, target: ObjectStoragePath) -> None:
    with pytest.raises(StorageError, match="the task has ended"):
        copy_model(str(other / "weights.pt"), str(target), "job", ended())

    assert not (target / "weights.pt").exists()


def test_a_copy_to_which_files_were_added_is_not_replaced(other: ObjectStoragePath, tmp_path: Path) -> None:
    target = ObjectStoragePath(f"file://{tmp_path}/models/census")
    copy_model(str(other), str(target), "job", Event())
    (target / "notes.txt").write_text("mine")

    assert "contains other files" in destination_errors(str(target), "other")[0]
    with pytest.raises(StorageError, match="it contains other files"):
        copy_model(str(other), str(target), "job", Event())
    assert (target / "notes.txt").read_text() == "mine"


def test_what_is_not_there_is_not_copied(model: ObjectStoragePath, target: ObjectStoragePath) -> None:
    with pytest.raises(StorageError, match="it has no files"):
        copy_model(str(model / "nothing"), str(target), "job", Event())

    assert read(target) == {}


def test_an_existing_model_is_replaced(model: ObjectStoragePath, target: ObjectStoragePath) -> None:
    write(target, {"saved_model.pb": b"old", "assets/old.txt": b"old"})

    copy_model(str(model), str(target), "job", Event())

    assert read(target) == FILES


def test_an_interrupted_copy_is_not_a_model_and_the_next_copy_is_complete(
    model: ObjectStoragePath, target: ObjectStoragePath, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(file: ObjectStoragePath, to: ObjectStoragePath, _: Event) -> None:
        if file.name == "saved_model.pb":
            raise OSError("No space left on device")
        to.write_bytes(file.read_bytes())

    with monkeypatch.context() as fault:
        fault.setattr(module, "_copy", full)
        with pytest.raises(StorageError, match=r"could not be copied to .*: No space left on device\."):
            copy_model(str(model), str(target), "job", Event())
    assert "saved_model.pb" not in read(target)

    copy_model(str(model), str(target), "job", Event())

    assert read(target) == FILES
    assert [path.name for path in target.parent.iterdir()] == [target.name], "nothing else is left"


def test_on_a_disk_the_old_model_stays_until_the_new_one_is_complete(
    model: ObjectStoragePath, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = write(ObjectStoragePath(f"file://{tmp_path}/models/census"), {"saved_model.pb": b"old"})

    def full(*_: Any) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(module, "_copy", full)
    with pytest.raises(StorageError):
        copy_model(str(model), str(target), "job", Event())

    assert read(target) == {"saved_model.pb": b"old"}


@pytest.mark.parametrize(
    ("destination", "message"),
    [
        ("models/census", "must be an absolute path or a URI"),
        ("nonsense://models/census", "model_destination cannot be 'nonsense://models/census': "),
        ("training://no_such@data/models", "There is no connection 'no_such'"),
        ("file://models/census", "must be an absolute path or a URI"),
        ("/", "must be a folder for this model alone"),
    ],
)
def test_an_invalid_destination_is_reported_before_the_training(destination: str, message: str) -> None:
    (error,) = destination_errors(destination, SAVED_MODEL)

    assert message in error


def test_the_root_of_a_store_is_not_a_destination(training_connection: str) -> None:
    (error,) = destination_errors(f"training://{training_connection}@data", SAVED_MODEL)

    assert "must be a folder for this model alone" in error


def test_a_valid_destination_has_no_errors() -> None:
    assert destination_errors("/models/census", SAVED_MODEL) == destination_errors("/models/census", "*.pt") == []
    assert destination_errors(None, None) == destination_errors("", None) == []


def test_a_job_without_a_model_has_no_destination() -> None:
    assert destination_errors("/models", None) == [
        "model_destination requires a model: model=None is a job without one"
    ]


def test_a_folder_with_other_models_is_not_replaced(model: ObjectStoragePath, tmp_path: Path) -> None:
    models = write(ObjectStoragePath(f"file://{tmp_path}/models"), {"other/1/saved_model.pb": b"other"})

    assert destination_errors(str(models), SAVED_MODEL) == [
        f"model_destination must be a folder for this model alone: {models} contains other files"
    ]
    with pytest.raises(StorageError, match="it contains other files"):
        copy_model(str(model), str(models), "job", Event())
    assert read(models) == {"other/1/saved_model.pb": b"other"}


def test_in_a_store_the_files_of_others_stay(model: ObjectStoragePath, training_connection: str) -> None:
    models = ObjectStoragePath(f"training://{training_connection}@data/models/{uuid4()}")
    write(models, {"other/1/saved_model.pb": b"other"})

    copy_model(str(model), str(models), "job", Event())

    assert read(models) == {**FILES, "other/1/saved_model.pb": b"other"}


def test_a_copy_that_was_interrupted_before_its_last_step_leaves_the_old_model(
    model: ObjectStoragePath, tmp_path: Path
) -> None:
    write(ObjectStoragePath(f"file://{tmp_path}/.census-job-replaced"), {"saved_model.pb": b"old"})

    with pytest.raises(StorageError):
        copy_model("training://no_such@data/model", f"{tmp_path}/census", "job", Event())
    copied = ObjectStoragePath(f"file://{tmp_path}/census")
    with pytest.raises(StorageError, match="the task has ended"):
        copy_model(str(model), str(copied), "job", ended())
    assert read(copied) == {"saved_model.pb": b"old"}

    copy_model(str(model), str(copied), "job", Event())

    assert read(copied) == FILES


def ended() -> Event:
    event = Event()
    event.set()
    return event
