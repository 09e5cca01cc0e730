"""`training://` locations, as any Airflow task uses them, on the storage of a running service."""

from __future__ import annotations

import os
from pathlib import Path
from uuid import uuid4

import pytest
from airflow.sdk import ObjectStoragePath

LARGE = os.urandom(3 * 1024 * 1024)


@pytest.fixture
def model(training_connection: str) -> ObjectStoragePath:
    """A model in its own folder."""
    model = ObjectStoragePath(f"training://{training_connection}@data/jobs/{uuid4()}/model/1")
    (model / "saved_model.pb").write_bytes(b"model")
    (model / "variables" / "large").write_bytes(LARGE)
    return model


def names(folder: ObjectStoragePath) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_model_can_be_listed_and_read(model: ObjectStoragePath) -> None:
    assert model.is_dir()
    assert names(model) == ["saved_model.pb", "variables"]
    assert (model / "saved_model.pb").read_text() == "model"
    assert (model / "variables" / "large").read_bytes() == LARGE


def test_a_part_of_a_file_can_be_read(model: ObjectStoragePath) -> None:
    with (model / "variables" / "large").open("rb") as file:
        file.seek(-10, os.SEEK_END)

        assert file.read() == LARGE[-10:]


def test_files_beside_the_model_are_found_by_its_path(model: ObjectStoragePath) -> None:
    (model.parent.parent / "metrics.json").write_text("{}")

    assert names(model.parent.parent) == ["metrics.json", "model"]


def test_a_model_can_be_copied_to_a_folder(model: ObjectStoragePath, tmp_path: Path) -> None:
    model.copy(ObjectStoragePath(f"file://{tmp_path}/copy"), recursive=True)

    assert (tmp_path / "copy" / "saved_model.pb").read_bytes() == b"model"
    assert (tmp_path / "copy" / "variables" / "large").read_bytes() == LARGE


def test_a_missing_file_is_not_found(model: ObjectStoragePath) -> None:
    missing = model / "no_such_file"

    assert not missing.exists()
    with pytest.raises(FileNotFoundError, match="no_such_file"):
        missing.read_text()


@pytest.mark.anyio
async def test_an_async_task_can_read_it_too(model: ObjectStoragePath) -> None:
    assert ObjectStoragePath(str(model / "saved_model.pb")).read_text() == "model"
