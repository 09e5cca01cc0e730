"""What a training reads: found before anything is sent."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from airflow.sdk import Asset, ObjectStoragePath

from airflow_training.client.storage import Upload
from airflow_training.jobs.parameters import TrainingParameters
from airflow_training.operators.inputs import find_mistakes, given, uploads
from airflow_training.operators.training import TrainingOperator


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "train.py").write_text("print(1)")
    (tmp_path / "a.csv").write_text("1")
    (tmp_path / "parts" / "deep").mkdir(parents=True)
    (tmp_path / "parts" / "1.csv").write_text("p1")
    (tmp_path / "parts" / "deep" / "2.csv").write_text("p2")
    return tmp_path


def read(**values: Any) -> TrainingParameters:
    return TrainingParameters.read({"job_name": "a", "image": "i", "completion_time": 1, "script": "train.py"} | values)


def contents(files: list[Upload]) -> dict[str, bytes]:
    return {file.name: file.source if isinstance(file.source, bytes) else file.source().read() for file in files}


def test_script_requirements_and_data_are_what_a_job_folder_holds(folder: Path) -> None:
    parameters = read(requirements="numpy", data={"data.csv": "a.csv", "raw.bin": b"\0\1", "train": "parts"})

    assert contents(uploads(parameters, folder)) == {
        "train.py": b"print(1)",
        "requirements.txt": b"numpy",
        "data.csv": b"1",
        "raw.bin": b"\0\1",
        "train/1.csv": b"p1",
        "train/deep/2.csv": b"p2",
    }


def test_data_may_be_named_in_all_of_airflows_ways(folder: Path) -> None:
    file = folder / "a.csv"
    ways = {"path": file, "uri": file.as_uri(), "asset": Asset(file.as_uri()), "object": ObjectStoragePath(str(file))}

    assert set(contents(uploads(read(data=ways), folder)).values()) == {b"1", b"print(1)"}


@pytest.mark.parametrize("path", [Path("a/train.py"), ObjectStoragePath("s3://bucket/a/train.py")])
def test_a_script_may_be_a_path_object(path: Any) -> None:
    task = TrainingOperator(task_id="train", job_name="a", image="i", completion_time=1, script=path)

    assert TrainingParameters.read(given(task)).folder_files == ("train.py",)


def test_a_script_that_is_a_directory_is_refused(folder: Path) -> None:
    assert find_mistakes({"script": "parts"}, folder) == [f"script must be a file: {folder / 'parts'} is a directory"]


def test_a_program_text_is_uploaded_as_it_is(folder: Path) -> None:
    assert contents(uploads(read(script="print(2)\n"), folder)) == {"train.py": b"print(2)\n"}


def test_everything_that_is_not_there_is_listed(folder: Path) -> None:
    mistakes = find_mistakes({"script": "trian.py", "data": {"a": "b.csv", "b": "a.csv", "c": "no-such://x/y"}}, folder)

    assert len(mistakes) == 3
    assert mistakes[0] == f"script is not there: {folder / 'trian.py'} does not exist"
    assert mistakes[1].startswith("data 'a' is not there")
    assert mistakes[2].startswith("data 'c' cannot be read from no-such://x/y")


@pytest.mark.parametrize("values", [{}, {"script": 3, "data": 4}, {"script": "a\nb", "data": {"x": b"", "y": None}}])
def test_what_the_vocabulary_refuses_is_not_looked_for(folder: Path, values: dict[str, Any]) -> None:
    assert find_mistakes(values, folder) == []
